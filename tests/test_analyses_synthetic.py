"""The analyses of the synthetic setting, and the measurements that come with the repository."""

import builtins
from base64 import b64decode
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jupytext
import numpy as np
import pytest
from commands import run_analysis
from pages import ROOT, plotly

from icl_mech.results import load_result
from icl_mech.stats import few_mean
from icl_mech.synthetic import Emergence, onsets, preset
from icl_mech.synthetic.settings import from_json

SHIPPED = sorted((ROOT / "analyses" / "data").glob("small-seed*.nc"))


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda path: path.stem)
def shipped(request: pytest.FixtureRequest) -> Emergence:
    run = load_result(request.param)
    assert isinstance(run, Emergence)
    return run


def test_three_seeds_are_shipped() -> None:
    assert [path.stem for path in SHIPPED] == [f"small-seed{seed}" for seed in (0, 1, 2)]
    assert sum(path.stat().st_size for path in SHIPPED) < 5e6


def test_they_are_of_the_preset(shipped: Emergence) -> None:
    settings = from_json(shipped.provenance["settings"])
    assert settings == preset("small", seed=settings.seed)
    assert shipped.steps[0] == 0
    assert shipped.steps[-1] == settings.n_steps


def test_the_model_comes_near_the_optimum(shipped: Emergence) -> None:
    assert shipped.against("bayes_mixture").value <= 1.5
    assert shipped.against("ridge").high < 0.7


def test_predictions_follow_an_algorithm_that_knows_the_bases(shipped: Emergence) -> None:
    """Exactly or by gradient descent: the two differ less from the model than any other does."""
    at_the_end = shipped.distances().value[-1]
    distance = dict(zip(shipped.references, at_the_end, strict=True))
    nearest = sorted(distance, key=lambda name: distance[name])
    inferring = {name for name in nearest if name.startswith("mixture")} | {"bayes_mixture"}
    assert set(nearest[:2]) <= inferring
    blind = min(d for name, d in distance.items() if name not in inferring)
    assert blind > 3 * distance[nearest[1]]


def test_the_basis_is_encoded_by_the_end_only(shipped: Emergence) -> None:
    assert shipped.td(0).high < shipped.td().low
    assert shipped.td().value >= 0.9
    when = onsets(shipped)
    assert when.notna().all().all()
    assert (when["encoding"] > 0).all()
    assert (when["lead_of_use"] > 0).all()


def test_before_training_decodability_is_chance() -> None:
    """Over seeds: of three 95 % intervals one may miss."""
    runs = [load_result(path) for path in SHIPPED]
    before = few_mean(np.array([run.td(0).value for run in runs if isinstance(run, Emergence)]))
    assert before.low <= 0.5 <= before.high


def test_exchanging_what_y_tokens_say_of_the_basis_changes_the_prediction(
    shipped: Emergence,
) -> None:
    """Moving means does not: bases are directions that y is multiplied with."""
    last, before = shipped.at(), shipped.at(0)
    assert last["all_y:exchange_own"] <= 1.1
    assert last["all_y:exchange_other"] >= 2
    assert last["all_y:shift_other"] < 1.3
    assert before["all_y:exchange_other"] < 1.2
    for one_token in ("last_y:replace", "last_y:exchange"):
        assert last[f"{one_token}_other"] < 1.2
    # What comes is the target basis' own regression, which no change of that size brings.
    layer = shipped.causal_layer(which="all_y:exchange")
    exchange, random, shift = (
        np.nanmean(shipped.followed(layer=layer, which=f"all_y:{how}").value[..., 1])
        for how in ("exchange", "random", "shift")
    )
    assert exchange > 0.3
    assert exchange > random + 0.2
    assert abs(shift) < 0.05


def test_the_run_on_families_beats_no_optimum() -> None:
    """Of one family, the best that knows it; of all together, the Bayes mixture."""
    run = load_result(ROOT / "analyses" / "data" / "families-seed0.nc")
    assert isinstance(run, Emergence)
    ours = run.data["squared_error"].isel(step=-1)
    for reference, over in (("known_family", "sequence"), ("bayes_mixture", ["basis", "sequence"])):
        more = ours - run.data["reference_squared_error"].sel(reference=reference)
        n = more.sizes["sequence"] * (1 if over == "sequence" else more.sizes["basis"])
        assert (more.mean(over) > -3 * more.std(over) / n**0.5).all(), reference
    # After the last example it is near them, but for quadratic functions.
    near = run.by_task().drop("quadratic")
    assert near["over_known_family"].between(1, 1.6).all()


@pytest.mark.slow
def test_han_emergence(tmp_path: Path) -> None:
    out = tmp_path / "emergence.html"
    said = run_analysis("han_emergence", "", out)
    assert "at 50% of the change, encoding lags by 624 [445, 803] updates" in said
    assert "relative to use, encoding leads by 1,887 [1,271, 2,502] updates" in said
    assert "by -" not in said
    for suffix in ("", "-training", "-points", "-perturbation", "-heads"):
        assert out.with_stem(f"emergence{suffix}").stat().st_size > 1e6
    traces, layout = plotly(out)
    first = load_result(SHIPPED[0])
    assert isinstance(first, Emergence)
    marks = [t["x"][0] for t in traces if t["mode"] == "markers"][:2]
    assert marks == pytest.approx(onsets(first).loc[0, ["encoding", "performance"]].tolist())
    assert "lags by 624 [445, 803] updates" in layout["title"]["subtitle"]["text"].replace(
        "<br>", " "
    )


def test_task_vector_vs_gradient_descent(tmp_path: Path) -> None:
    out = tmp_path / "algorithms.html"
    said = run_analysis("task_vector_vs_gradient_descent", "", out)
    first = load_result(SHIPPED[0])
    assert isinstance(first, Emergence)
    assert f"nearest: {first.nearest_reference()}" in said
    assert "(100 sequences per basis) tells a true R² of 0.30 from 0" in said
    drawn = {t["name"]: t["y"] for t in plotly(out)[0]}
    shown = np.frombuffer(b64decode(drawn["Bayes mixture (optimum)"]["bdata"]))
    at = first.references.index("bayes_mixture")
    np.testing.assert_allclose(shown, first.distances().value[:, at], rtol=1e-6)


@pytest.mark.parametrize("name", ["han_emergence", "task_vector_vs_gradient_descent"])
@pytest.mark.parametrize("where", ["analyses", "elsewhere"])
def test_they_find_their_data_as_notebooks(name: str, where: str, tmp_path: Path) -> None:
    """Cells up to the settings, run where a notebook has no file of its own."""
    cells = jupytext.read(ROOT / "analyses" / f"{name}.py").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    there: dict[str, Any] = {"__name__": "__main__"}
    with chdir(ROOT / "analyses" if where == "analyses" else tmp_path):
        with patch.object(builtins, "__IPYTHON__", True, create=True):
            exec("\n".join(code), there)
        options = there["options"]
        shown = options.data / "small-seed0.nc" if name == "han_emergence" else options.run
        assert shown.is_file()
