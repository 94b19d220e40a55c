"""Results on disk: all of it comes back, and nothing half-written stays."""

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import netCDF4
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr

import icl_mech
from icl_mech.errors import InputError
from icl_mech.plotting import check_target
from icl_mech.results import FORMAT, Result, load_result, write_whole
from icl_mech.tasks.text import as_path


class Tiny(Result):
    """The smallest result."""

    def full_summary(self) -> pd.DataFrame:
        return self.to_frame().groupby("task").mean(numeric_only=True)

    def to_frame(self) -> pd.DataFrame:
        return self.data[["right", "logprob"]].to_dataframe().reset_index()

    def _draw(self) -> go.Figure:
        return go.Figure()

    def table(self) -> pd.DataFrame:
        return self.summary()


PROVENANCE: dict[str, Any] = {
    "model": "tiny",
    "settings": {"n_prompts": 3, "template": "{x}->{y}\n", "leading_space": None, "deep": [1, 2.5]},
    "text": 'θ "quoted" \\ é 東京',
    "flag": True,
    "empty": {},
}


def tiny() -> Tiny:
    shape = ("task", "prompt")
    data = xr.Dataset(
        {
            "right": (shape, np.array([[True, False, True], [False, False, True]])),
            "logprob": (
                shape,
                np.array([[-1.5, np.nan, -np.inf], [0, -2, -3]], dtype=np.float32),
                {"units": "nats"},
            ),
            "exact": (shape, np.arange(6.0).reshape(2, 3) / 3),
            "top": (shape, np.arange(6, dtype=np.int64).reshape(2, 3) * 10**12),
            "rank": (shape, np.arange(6, dtype=np.int32).reshape(2, 3)),
            "query": (shape, np.array([["a", "é", ""], ["東京", 'b"', "\n"]])),
            "prior": ("task", np.array(["x", "longer"]), {"long_name": "label prior"}),
            "count": ((), np.int64(7)),
        },
        coords={"task": ["en_fr", "antonyms"], "layer": ("layer", np.arange(2))},
    )
    return Tiny(data, PROVENANCE)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tiny().save(tmp_path / "tiny.nc")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- round trip -----------------------------------------------------------------------------


def test_a_result_comes_back_as_it_was(saved: Path) -> None:
    loaded = load_result(saved)
    assert type(loaded) is Tiny
    xr.testing.assert_identical(loaded.data, tiny().data)
    assert loaded.provenance == PROVENANCE


@pytest.mark.parametrize("name", ["right", "logprob", "exact", "top", "rank", "count", "layer"])
def test_numbers_keep_their_type(saved: Path, name: str) -> None:
    loaded, made = load_result(saved).data[name], tiny().data[name]
    assert loaded.dtype == made.dtype
    np.testing.assert_array_equal(loaded.values, made.values)


@pytest.mark.parametrize("name", ["query", "prior", "task"])
def test_text_stays_text(saved: Path, name: str) -> None:
    loaded, made = load_result(saved).data[name], tiny().data[name]
    assert all(isinstance(text, str) for text in loaded.values.ravel())
    assert loaded.values.ravel().tolist() == made.values.ravel().tolist()


def test_units_are_kept(saved: Path) -> None:
    data = load_result(saved).data
    assert data["logprob"].attrs == {"units": "nats"}
    assert data["prior"].attrs == {"long_name": "label prior"}


def test_what_the_file_says_of_itself_stays_in_the_file(saved: Path) -> None:
    assert load_result(saved).data.attrs == {}
    attributes = xr.load_dataset(saved).attrs
    assert set(attributes) == {"icl_mech_kind", "icl_mech_format", "provenance"}
    assert (attributes["icl_mech_kind"], attributes["icl_mech_format"]) == ("Tiny", FORMAT)


def test_attributes_of_the_whole_are_kept(tmp_path: Path) -> None:
    result = Tiny(tiny().data.assign_attrs(title="a scan"), {})
    assert load_result(result.save(tmp_path / "t.nc")).data.attrs == {"title": "a scan"}


def test_saving_changes_nothing(tmp_path: Path) -> None:
    result = tiny()
    result.save(tmp_path / "tiny.nc")
    xr.testing.assert_identical(result.data, tiny().data)
    assert result.provenance == PROVENANCE


def test_fewer_digits(tmp_path: Path) -> None:
    """Rounded to what was asked for; whole numbers, truth values and text stay as they are."""
    full = tiny()
    rounded = load_result(full.save(tmp_path / "small.nc", digits=3))
    np.testing.assert_allclose(rounded.data["exact"], full.data["exact"], rtol=0.005)
    assert not np.array_equal(rounded.data["exact"], full.data["exact"])
    # With an infinity in it, logprob is kept as it is.
    for name in set(full.data.variables) - {"exact"}:
        assert rounded.data[name].identical(full.data[name])
    with pytest.raises(InputError, match="digits is 0; expected 1 to 7"):
        full.save(tmp_path / "small.nc", digits=0)


def test_a_loaded_result_saves_again(saved: Path, tmp_path: Path) -> None:
    again = load_result(load_result(saved).save(tmp_path / "again.nc"))
    xr.testing.assert_identical(again.data, tiny().data)
    assert again.provenance == PROVENANCE


def test_texts_of_results_put_together_are_not_cut(tmp_path: Path) -> None:
    """Each file's texts are as long as its longest; xarray would keep the first one's length."""
    parts = [tiny().data.isel(task=[i]) for i in range(2)]
    for i, part in enumerate(parts):
        Tiny(part.assign(prior=("task", ["x" * (i + 1) ** 3])), {}).save(tmp_path / f"{i}.nc")
    loaded = [load_result(tmp_path / f"{i}.nc").data for i in range(2)]
    whole = xr.concat(loaded, dim="task")
    again = load_result(Tiny(whole, {}).save(tmp_path / "whole.nc"))
    assert again.data["task"].values.tolist() == ["en_fr", "antonyms"]
    assert again.data["prior"].values.tolist() == ["x", "x" * 8]
    assert again.data["query"].values.tolist() == tiny().data["query"].values.tolist()


def test_methods_work_on_a_loaded_result(saved: Path) -> None:
    pd.testing.assert_frame_equal(load_result(saved).to_frame(), tiny().to_frame())
    assert load_result(saved).summary()["right"].to_dict() == pytest.approx(
        {"en_fr": 2 / 3, "antonyms": 1 / 3}
    )


def test_saving_makes_folders_and_takes_text(tmp_path: Path) -> None:
    path = tiny().save(str(tmp_path / "new" / "folder" / "tiny.nc"))
    assert path == tmp_path / "new" / "folder" / "tiny.nc"
    assert leftovers(path.parent) == ["tiny.nc"]
    assert load_result(str(path)).provenance == PROVENANCE


def test_saving_replaces_an_older_file(saved: Path) -> None:
    Tiny(tiny().data.isel(task=[0]), {"model": "other"}).save(saved)
    assert load_result(saved).provenance == {"model": "other"}
    assert load_result(saved).data.sizes["task"] == 1
    assert leftovers(saved.parent) == ["tiny.nc"]


# --- files that cannot be loaded ------------------------------------------------------------


@pytest.mark.parametrize("name", ["none.nc", "no/folder.nc", "."])
def test_loading_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"no such file; expected a saved result"):
        load_result(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"not a netCDF file", b"\x89HDF\r\n\x1a\n", b"CDF\x01"])
def test_loading_what_is_no_netcdf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.nc"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.nc: not a result of icl-mech"):
        load_result(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_loading_half_a_file(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"tiny\.nc: not a result of icl-mech"):
        load_result(saved)


def test_loading_a_file_damaged_inside(saved: Path) -> None:
    content = saved.read_bytes()
    assert b"GCOL" in content  # where HDF5 keeps text
    saved.write_bytes(content.replace(b"GCOL", b"xxxx"))
    with pytest.raises(InputError, match=r"tiny\.nc: not a result of icl-mech"):
        load_result(saved)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"icl_mech_kind": "Tiny"},
        {"icl_mech_kind": "Tiny", "icl_mech_format": "one", "provenance": "{}"},
        {"icl_mech_kind": "Tiny", "icl_mech_format": FORMAT},
        {"icl_mech_kind": "Tiny", "icl_mech_format": FORMAT, "provenance": "{"},
    ],
    ids=["none", "no-format", "odd-format", "no-provenance", "odd-provenance"],
)
def test_loading_a_netcdf_of_another_program(tmp_path: Path, attributes: dict) -> None:
    path = tmp_path / "other.nc"
    tiny().data.assign_attrs(attributes).to_netcdf(path)
    with pytest.raises(InputError, match=r"other\.nc: not a result of icl-mech"):
        load_result(path)


@pytest.mark.parametrize(
    ("kind", "version"), [("Unheard", FORMAT), ("Tiny", FORMAT + 1), ("Result", FORMAT)]
)
def test_loading_another_kind_or_format(tmp_path: Path, kind: str, version: int) -> None:
    path = tmp_path / "later.nc"
    attributes = {"icl_mech_kind": kind, "icl_mech_format": version, "provenance": "{}"}
    tiny().data.assign_attrs(attributes).to_netcdf(path)
    with pytest.raises(
        InputError,
        match=rf"later\.nc: a '{kind}' result in format {version}; this version reads .*Tiny.* "
        rf"in format {FORMAT}",
    ):
        load_result(path)


def test_result_needs_its_methods() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Result(xr.Dataset(), {})


# --- writing --------------------------------------------------------------------------------


def test_write_whole_writes(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.txt", lambda to: to.write_text("whole"))
    assert path.read_text() == "whole"
    assert leftovers(tmp_path) == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_temporary_file_lies_beside_and_keeps_the_suffix(tmp_path: Path) -> None:
    seen = []
    write_whole(tmp_path / "a.nc", lambda to: seen.append(to))
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".nc"
    assert seen[0] != tmp_path / "a.nc"


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failing_writer_leaves_nothing(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def fail(to: Path) -> None:
        to.write_text("half")
        raise ZeroDivisionError("halfway")

    with pytest.raises(ZeroDivisionError, match="halfway"):
        write_whole(path, fail)
    assert leftovers(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(to: Path) -> None:
        to.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*a\.txt \(No space left on device\)"):
        write_whole(tmp_path / "a.txt", fail)
    assert leftovers(tmp_path) == []


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(to: Path) -> None:
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        write_whole(tmp_path / "a.txt", interrupt)
    assert leftovers(tmp_path) == []


def test_numbers_of_numpy_are_saved(tmp_path: Path) -> None:
    """A seed or a count out of an array must not cost the run."""
    given = {
        "seed": np.int64(3),
        "n": {"prompts": [np.int32(5)], "share": np.float32(0.5)},
        "flag": np.bool_(True),
    }
    loaded = load_result(Tiny(tiny().data, given).save(tmp_path / "tiny.nc"))
    assert loaded.provenance == {"seed": 3, "n": {"prompts": [5], "share": 0.5}, "flag": True}


def test_provenance_that_is_not_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Tiny(tiny().data, {"path": tmp_path}).save(tmp_path / "tiny.nc")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("inside", ["tiny.nc", "folder/tiny.nc"])
def test_saving_below_a_file_is_an_error(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*tiny\.nc .*expected a folder"):
        tiny().save(file / inside)
    assert leftovers(tmp_path) == ["file"]
    assert file.read_text() == "in the way"


def test_saving_over_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiny.nc").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*tiny\.nc"):
        tiny().save(tmp_path / "tiny.nc")
    assert leftovers(tmp_path) == ["tiny.nc"]


# --- files that ask for too much, or are of another kind -------------------------------------


class Grid(Tiny):
    """A result that needs an array over two axes."""

    ARRAYS: ClassVar = {"right": ("task", "prompt")}


ATTRIBUTES = {"icl_mech_kind": "Grid", "icl_mech_format": FORMAT, "provenance": "{}"}


@pytest.mark.parametrize("provenance", ["[]", "null", "3", '"text"', "NaN"])
def test_provenance_is_an_object(tmp_path: Path, provenance: str) -> None:
    path = tmp_path / "odd.nc"
    tiny().data.assign_attrs({**ATTRIBUTES, "provenance": provenance}).to_netcdf(path)
    with pytest.raises(InputError, match=r"odd\.nc: provenance is .*; expected an object"):
        load_result(path)


def test_a_small_file_that_asks_for_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 2**33)
        file.createVariable("right", "f8", ("x",), zlib=True, chunksizes=(2**20,))
        file.setncatts({**ATTRIBUTES, "icl_mech_kind": "Tiny"})
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match=r"bomb\.nc: asks for 64\.0 GiB of memory, more than a f"):
        load_result(path)


def test_an_array_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    """Zeros are what deflate packs tightest."""
    data = xr.Dataset({"right": (("task", "prompt"), np.zeros((2, 4_000_000)))})
    path = Grid(data, {}).save(tmp_path / "zeros.nc")
    assert data.nbytes > 500 * path.stat().st_size
    assert load_result(path).data.sizes == {"task": 2, "prompt": 4_000_000}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (xr.Dataset(), "no array 'right' over task, prompt, which a Grid has"),
        (xr.Dataset({"left": ("task", [1.0])}), "no array 'right' over task, prompt"),
        (xr.Dataset({"right": ("task", [1.0])}), "no array 'right' over task, prompt"),
    ],
)
def test_arrays_of_another_kind(tmp_path: Path, data: xr.Dataset, message: str) -> None:
    path = tmp_path / "other.nc"
    data.assign_attrs(ATTRIBUTES).to_netcdf(path)
    with pytest.raises(InputError, match=message):
        load_result(path)


def test_a_file_without_arrays(tmp_path: Path) -> None:
    path = tmp_path / "empty.nc"
    xr.Dataset().assign_attrs({**ATTRIBUTES, "icl_mech_kind": "Tiny"}).to_netcdf(path)
    with pytest.raises(InputError, match=r"empty\.nc: holds no arrays; expected those of a Tiny"):
        load_result(path)


# --- odd names, full disks ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["back\\slash.nc", "fol\\der/tiny.nc", "a#mode=bytes.nc", "θ é.nc"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = tiny().save(tmp_path / name)
    assert path == tmp_path / name
    assert leftovers(path.parent) == [path.name]
    xr.testing.assert_identical(load_result(path).data, tiny().data)


def test_a_full_disk_is_called_by_its_name(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: netCDF says "HDF error" of both."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_results import Tiny, np, xr
from icl_mech.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
data = xr.Dataset({{"noise": ("x", np.random.default_rng(0).random(100_000))}})
try:
    Tiny(data, {{}}).save({str(tmp_path / "tiny.nc")!r})
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "tiny.nc (File too large); expected" in done.stdout
    assert leftovers(tmp_path) == []


# --- caveats --------------------------------------------------------------------------------


class Doubtful(Tiny):
    """A result with something to keep in mind."""

    def caveats(self) -> list[str]:
        return ["few prompts: 3 < 5"]


def test_caveats_are_shown_wherever_the_result_is() -> None:
    result = Doubtful(tiny().data, {"model": "tiny"})
    assert repr(result).endswith("\nnote: few prompts: 3 < 5")
    assert result._repr_html_().endswith("<ul><li>few prompts: 3 &lt; 5</li></ul>")
    assert "<ul>" not in tiny()._repr_html_()


# --- arrays of every kind, and odd names of files ---------------------------------------------


def test_every_kind_says_which_arrays_it_needs(tmp_path: Path) -> None:
    """A file of a kind without any of its arrays is refused, by the name of the first."""
    kinds = [name for name in icl_mech.__all__ if is_result(getattr(icl_mech, name))]
    assert len(kinds) >= 17
    for kind in kinds:
        needed = getattr(icl_mech, kind).ARRAYS
        path = tmp_path / f"{kind}.nc"
        xr.Dataset({"left": ("task", [1.0])}).assign_attrs(
            {**ATTRIBUTES, "icl_mech_kind": kind}
        ).to_netcdf(path)
        with pytest.raises(InputError, match=f"no array '{next(iter(needed))}' over .* {kind} has"):
            load_result(path)


def is_result(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Result) and value is not Result


def test_a_name_as_long_as_the_system_takes(tmp_path: Path) -> None:
    """The temporary file's name is not longer than the one that was asked for."""
    path = tiny().save(tmp_path / ("n" * 252 + ".nc"))
    assert leftovers(tmp_path) == [path.name]
    check_target(tmp_path / ("é" * 125 + ".html"))


@pytest.mark.parametrize("write", [tiny().save, check_target])
def test_a_name_that_is_too_long_is_called_that(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    with pytest.raises(InputError, match=r"File name too long\); expected a shorter name") as told:
        write(tmp_path / ("n" * 300 + ".html"))
    assert len(str(told.value)) < len(str(tmp_path)) + 250
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("path", ["nul\0.nc", "\ud800.nc"])
def test_what_no_file_can_be_named(path: Any) -> None:
    for use in (tiny().save, load_result):
        with pytest.raises(InputError, match="expected text that UTF-8 can write"):
            use(path)


@pytest.mark.parametrize("given", [5, None, b"bytes.nc"])
def test_what_is_no_path(given: Any) -> None:
    with pytest.raises(InputError, match="the name of a result is .*; expected a path"):
        as_path("the name of a result", given)
