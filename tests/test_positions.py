"""Position scans: every cell against one full forward, effects by hand, and what is refused."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from plain import plain_each
from scipy.stats import bootstrap
from transformer_lens import patching

from icl_mech import load_result
from icl_mech.cli.options import ModelOptions
from icl_mech.errors import InputError
from icl_mech.model import SITES, Edit, HookedModel
from icl_mech.patch import Contrast, PositionScan, __main__, cells, patch_contrasts, patch_positions
from icl_mech.patch.contrasts import check_aligned, encode_contrast
from icl_mech.patch.positions_plan import PositionSettings, check_direction, draw_pairs
from icl_mech.patch.positions_result import role_name
from icl_mech.plotting import export
from icl_mech.prompts import Encoder, Template
from icl_mech.stats import mean, ratio_of_means
from icl_mech.tasks import Pair, load_other, load_task

ROLES = ("demo_0_y", "demo_1_x", "query", "final_arrow")


def sites_of(model: HookedModel) -> tuple[str, ...]:
    parallel = "blocks.0.hook_resid_mid" not in model.bridge.hook_dict
    return tuple(s for s in SITES if not (parallel and s == "resid_mid"))


def contrasts_of(
    model: HookedModel, name: str, corruption: str, n_prompts: int = 2, n_shots: int = 2
) -> list[Contrast]:
    task = load_task(name)
    encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    settings = PositionSettings(n_prompts=n_prompts, n_shots=n_shots, corruption=corruption)
    drawn = draw_pairs(task, load_other(task), settings)
    return [encode_contrast(encoder, d) for d in drawn]


def plain_cells(
    model: HookedModel, contrast: Contrast, edits: Sequence[Edit], target: str
) -> list[list[float]]:
    """Logit differences, log probabilities and ranks by full forwards with hooks."""
    cells = []
    for logprobs in plain_each(model, getattr(contrast, target), edits):
        answer = logprobs[contrast.answer]
        rivals = logprobs[list(contrast.rivals)].mean()
        rank = int((logprobs > answer + 1e-4).sum())
        cells.append([float(answer - rivals), float(answer), rank])
    return cells


# --- against the plain way ----------------------------------------------------------------------


def test_every_cell_equals_one_full_forward(tiny: HookedModel) -> None:
    """Prompts of different lengths: another task's demonstrations are longer."""
    sites = sites_of(tiny)
    scan = patch_positions(
        tiny, "to_upper", 2, 2, corruption="task", sites=sites, roles=ROLES,
        head_roles=ROLES[::2], progress=False,
    ).data.sel(task="to_upper")  # fmt: skip
    pairs = contrasts_of(tiny, "to_upper", "task")
    assert len(pairs[0].clean) != len(pairs[0].corrupted)
    kinds = {"denoise": ("clean", "corrupted"), "noise": ("corrupted", "clean")}
    for i, (direction, (source, target)) in enumerate(kinds.items()):
        contrast = pairs[i]  # one prompt per direction: twice as many forwards show no more
        prompt = getattr(contrast, source)
        _, cache = tiny.bridge.run_with_cache(torch.tensor([prompt.tokens]))
        run = scan.sel(direction=direction).isel(prompt=i)
        edits, cells = [], []
        for site in sites:
            for role in ROLES[::2] if site == "z" else ROLES:
                for layer in range(tiny.n_layers):
                    hook = "attn.hook_z" if site == "z" else f"hook_{site}"
                    value = cache[f"blocks.{layer}.{hook}"][0, prompt.position(role)]
                    for head in range(tiny.n_heads) if site == "z" else [None]:
                        own = value if head is None else value[head]
                        edits.append(Edit(layer, own, site, role, head=head))
                        at = {"head_role": role, "layer": layer, "head": head}
                        at = at if site == "z" else {"site": site, "role": role, "layer": layer}
                        prefix = "head_" if site == "z" else ""
                        cells.append(
                            [
                                float(run[prefix + name].sel(at))
                                for name in ("logit_difference", "logprob", "rank")
                            ]
                        )
        plain = plain_cells(tiny, contrast, edits, target)
        for edit, got, expected in zip(edits, cells, plain, strict=True):
            assert got[:2] == pytest.approx(expected[:2], abs=2e-4), (edit, target)
            assert abs(got[2] - expected[2]) <= 1


@pytest.mark.parametrize("corruption", ["labels", "query"])
def test_tokens_before_the_first_difference_are_not_run_and_right(
    tiny_llama: HookedModel, corruption: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan() -> xr.Dataset:
        return patch_positions(
            tiny_llama, "to_upper", 3, 3, corruption=corruption, progress=False
        ).data

    evaluated: list[int] = []
    evaluate = HookedModel.evaluate

    def count(model: HookedModel, prompts: list, edits: list, *rest: object) -> object:
        evaluated.append(len(edits))
        return evaluate(model, prompts, edits, *rest)

    monkeypatch.setattr(HookedModel, "evaluate", count)
    short = scan()
    live = {"labels": 9, "query": 2}[corruption]  # of 11: all but the first x and arrow
    assert evaluated == [live * tiny_llama.n_layers] * 2
    monkeypatch.setattr(cells, "_same_until", lambda *_: False)
    whole = scan()
    assert evaluated[2:] == [11 * tiny_llama.n_layers] * 2
    for name in ("logit_difference", "logprob"):
        np.testing.assert_allclose(short[name], whole[name], atol=1e-4)


def test_the_last_stream_restores_and_loses_everything(tiny: HookedModel) -> None:
    scan = patch_positions(
        tiny, "to_upper", 3, 2, sites="resid_post", roles="final_arrow", progress=False
    )
    last = scan.data.isel(layer=-1, role=0, site=0, task=0)
    for direction, kind in (("denoise", "clean"), ("noise", "corrupted")):
        for name in ("logit_difference", "logprob"):
            reference = scan.data[f"{kind}_{name}"].isel(task=0)
            np.testing.assert_allclose(last[name].sel(direction=direction), reference, atol=1e-4)
        effect = scan.effect("to_upper", "resid_post", direction)["value"]
        assert float(effect.isel(layer=-1, role=0)) == pytest.approx(1, abs=1e-3)


def test_a_prompt_patched_with_itself(
    tiny_llama: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [Contrast(c.clean, c.clean, c.answer, c.rivals)
            for c in contrasts_of(tiny_llama, "to_upper", "labels")]  # fmt: skip
    scan = patch_contrasts(tiny_llama, same, sites=SITES, progress=False)
    assert scan.effect("contrasts", "z", "noise")["value"].isnull().all()
    assert "do not differ" in repr(scan)
    assert any("2 of 2 corrupted prompts are the clean one" in c for c in scan.caveats())
    monkeypatch.setattr(cells, "_same_until", lambda *_: False)
    really = patch_contrasts(tiny_llama, same, sites=SITES, progress=False)
    for one in (scan, really):
        for prefix in ("", "head_"):
            patched = one.data[f"{prefix}logprob"]
            assert float(abs(patched - one.data["clean_logprob"]).max()) < 1e-4


@pytest.mark.slow
def test_transformer_lens_patching_gives_the_same_numbers(gemma: HookedModel) -> None:
    encoder = Encoder(gemma.tokenizer, Template())
    clean = encoder.encode([Pair("France", ("Paris",))], "Japan")
    corrupted = encoder.encode([Pair("hot", ("cold",))], "Japan")
    assert len(clean) == len(corrupted) == 7
    (answer,), (rival,) = (t[:1] for t in encoder.answer_tokens(clean, ["Tokyo", "China"]))
    contrast = Contrast(clean, corrupted, answer, (rival,))
    scan = patch_contrasts(gemma, [contrast], roles="tokens", direction="denoise", progress=False)
    values = scan.data["logprob"].isel(task=0, site=0, direction=0, prompt=0)
    _, cache = gemma.bridge.run_with_cache(torch.tensor([clean.tokens]))
    # Their loop runs one whole forward per cell: some of the cells are enough.
    at = pd.DataFrame(product((0, 17), (3, 6)), columns=["layer", "pos"])
    expected = patching.get_act_patch_resid_pre(
        gemma.bridge,
        torch.tensor([corrupted.tokens]),
        cache,
        lambda logits: logits[0, -1].float().log_softmax(-1)[answer],
        index_axis_names=None,
        index_df=at,
    )
    ours = values.values[at["pos"], at["layer"]]
    np.testing.assert_allclose(ours, expected.cpu(), atol=1e-3)
    assert float(values.max() - values.min()) > 0.5


# --- contrasts ----------------------------------------------------------------------------------


def test_contrasts_differ_in_one_thing(tiny_llama: HookedModel) -> None:
    def parts(text: str) -> tuple[list[str], list[str], str]:
        *demos, last = text.split("\n")
        pairs = [demo.split("->") for demo in demos]
        return [x for x, _ in pairs], [y for _, y in pairs], last

    for corruption in ("labels", "task", "query"):
        for c in contrasts_of(tiny_llama, "to_upper", corruption, 4, 3):
            x, y, query = parts(c.clean.text)
            other_x, other_y, other_query = parts(c.corrupted.text)
            assert (x == other_x) == (corruption != "task")
            assert (y == other_y) == (corruption == "query")
            assert (sorted(y) == sorted(other_y)) == (corruption != "task")
            assert (query == other_query) == (corruption != "query")
            right = query.removesuffix("->").strip().upper()
            spoken = [tiny_llama.to_string(t).strip() for t in (c.answer, *c.rivals)]
            assert spoken[0] == right
            assert right not in spoken[1:]
            if corruption == "query":
                assert spoken[1:] == [other_query.removesuffix("->").strip().upper()]
            else:
                assert set(spoken[1:]) == {label.strip()[0] for label in other_y} - {right}


def test_the_answer_has_something_to_be_compared_with(tiny_llama: HookedModel) -> None:
    prompt = contrasts_of(tiny_llama, "to_upper", "labels")[0].clean
    for rivals in ((), (5, 7)):
        with pytest.raises(InputError, match="rivals .* of answer token 7; expected at least one"):
            Contrast(prompt, prompt, 7, rivals)


@pytest.mark.parametrize("corruption", ["labels", "query"])
def test_one_label_only(tiny_llama: HookedModel, corruption: str, tmp_path: Path) -> None:
    (tmp_path / "same.json").write_text(json.dumps({f"w{i}": "yes" for i in range(20)}))
    with pytest.raises(InputError, match="nothing to compare the answer 'yes' with"):
        patch_positions(tiny_llama, str(tmp_path / "same.json"), 2, 2, corruption=corruption)


# --- effects ------------------------------------------------------------------------------------


def scan_of(roles: tuple[str, ...] = ROLES, task: str = "t", n_prompts: int = 4) -> PositionScan:
    """A scan with drawn numbers, and at (first role, layer 1) ones that are worked out by hand."""
    rng = np.random.default_rng(0)
    n_layers, n_heads = 3, 2
    head_roles = roles[-1:]
    plain = ("task", "site", "direction", "prompt", "role", "layer")
    heads = ("task", "direction", "prompt", "head_role", "layer", "head")
    sizes = {"task": 1, "site": 2, "direction": 2, "prompt": n_prompts, "role": len(roles)}
    sizes |= {"layer": n_layers, "head_role": len(head_roles), "head": n_heads}
    variables: dict[str, tuple] = {}
    for prefix, dims in (("", plain), ("head_", heads), ("clean_", ("task", "prompt")),
                         ("corrupted_", ("task", "prompt"))):  # fmt: skip
        shape = [sizes[d] for d in dims]
        for name in ("logit_difference", "logprob"):
            variables[prefix + name] = (dims, rng.normal(size=shape), {"units": "x"})
        variables[prefix + "rank"] = (dims, rng.integers(0, 3, shape))
    for name in ("query", "answer", "clean_text", "corrupted_text"):
        variables[name] = (("task", "prompt"), [[f"{name} {i}" for i in range(n_prompts)]])
    data = xr.Dataset(
        variables,
        coords={
            "task": [task],
            "site": ["attn_out", "mlp_out"],
            "direction": ["denoise", "noise"],
            "role": list(roles),
            "head_role": list(head_roles),
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
        },
    )
    data["clean_logit_difference"][0] = np.resize([4.0, 6.0], n_prompts)
    data["corrupted_logit_difference"][0] = np.resize([2.0, 0.0], n_prompts)
    data["logit_difference"][0, 0, :, :, 0, 1] = np.resize([3.0, 3.0], n_prompts)
    data["head_logit_difference"][0, :, :, 0, 2, 1] = np.resize([4.0, 1.0], n_prompts)
    provenance = {"model": "<b>m</b>", "n_shots": 2, "seed": 0, "corruption": "labels"}
    provenance |= {"roles": list(roles), "head_roles": list(head_roles)}
    return PositionScan(data, provenance)


def test_effects_by_hand() -> None:
    """Clean 4 and 6, corrupted 2 and 0: apart by 2 and 6, in the mean 4."""
    scan = scan_of()
    # Patched 3 and 3: 1 and 3 above corrupted (mean 2), 1 and 3 below clean (mean 2).
    for direction in ("denoise", "noise"):
        effect = scan.effect("t", "attn_out", direction).sel(role="demo_0_y", layer=1)
        assert float(effect["value"]) == pytest.approx(0.5)
        assert float(effect["low"]) == pytest.approx(0.5)
        assert float(effect["high"]) == pytest.approx(0.5)
    # Head 2.1 patched 4 and 1: above corrupted 2 and 1 (mean 1.5), below clean 0 and 5 (2.5).
    for direction, value in (("denoise", 1.5 / 4), ("noise", 2.5 / 4)):
        effect = scan.effect("t", "z", direction)
        assert effect["value"].dims == ("role", "layer", "head")
        cell = effect.sel(role="final_arrow", layer=2, head=1)
        assert float(cell["value"]) == pytest.approx(value)
        # Prompts of one kind only would give 2/2 and 1/6, or 0/2 and 5/6.
        assert float(cell["low"]) < value < float(cell["high"])
    assert scan.sites == ["attn_out", "mlp_out", "z"]
    logprob = scan.effect("t", "mlp_out", "noise", "logprob")["value"]
    of = scan.data.isel(task=0)
    apart = (of["clean_logprob"] - of["corrupted_logprob"]).mean()
    lost = (of["clean_logprob"] - of["logprob"].sel(site="mlp_out", direction="noise")).mean(
        "prompt"
    )
    np.testing.assert_allclose(logprob, lost / apart)


def test_the_largest_effect_is_named() -> None:
    scan = scan_of()
    scan.data["logit_difference"][0, 1, 0, :, 2, 1] = 9.0
    scan.data["head_logit_difference"][0, 1, :, 0, 2, 1] = -9.0
    row = scan.summary().loc["t", "mlp_out", "denoise"]
    assert (row["role"], row["layer"], row["effect"]) == ("query", 1, (9 - 1) / 4)
    assert pd.isna(row["head"])
    row = scan.summary().loc["t", "z", "noise"]
    assert (row["role"], row["layer"], row["head"]) == ("final_arrow", 2, 1)
    assert row["effect"] == (5 + 9) / 4
    assert row[["n_prompts", "clean_logit_difference", "corrupted_logit_difference"]].tolist() == [
        4, 5.0, 1.0,
    ]  # fmt: skip
    assert len(scan.summary()) == 6
    assert "at query, layer 1" in repr(scan)
    assert "at final →, head 2.1" in repr(scan)
    assert "&lt;b&gt;m" in scan._repr_html_()


def test_tidy_rows() -> None:
    scan = scan_of()
    frame = scan.to_frame()
    assert len(frame) == 2 * 2 * 4 * 4 * 3 + 2 * 4 * 1 * 3 * 2
    keys = ["task", "site", "direction", "prompt", "role", "layer", "head"]
    assert not frame.duplicated(keys).any()
    cell = frame.query("site == 'z' and direction == 'noise' and prompt == 1 and layer == 2")
    cell = cell[cell["head"] == 1].iloc[0]
    assert (cell["role"], cell["logit_difference"]) == ("final_arrow", 1.0)
    assert (cell["clean_logit_difference"], cell["corrupted_logit_difference"]) == (6.0, 0.0)
    assert cell["query"] == "query 1"
    assert frame[frame["site"] != "z"]["head"].isna().all()


def test_caveats_say_where_shares_mean_nothing() -> None:
    scan = scan_of(n_prompts=12)
    scan.data["clean_rank"][0] = 0
    assert scan.caveats() == []
    scan.data["clean_rank"][0, :7] = 3
    assert scan.caveats() == ["t: the model answers 5 of 12 clean prompts right"]
    scan.data["clean_rank"][0] = 0
    scan.data["corrupted_logit_difference"][0] = np.resize([0.0, 10.0], 12)
    assert "shares of that difference mean nothing" in scan.caveats()[0]
    assert scan.effect("t", "attn_out", "noise")["low"].isnull().all()
    assert scan_of(n_prompts=3).caveats()[0].startswith("few prompts per task (3)")


def test_ratio_of_means_is_near_the_bootstrap_interval() -> None:
    rng = np.random.default_rng(1)
    below = rng.normal(3, 1, 20)
    above = below[:, None] * [0.5, 2.0] + rng.normal(0, 0.5, (20, 2))
    ours = ratio_of_means(above, below)
    for cell in (0, 1):
        drawn = bootstrap(
            (above[:, cell], below),
            lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
            paired=True,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert ours.value[cell] == pytest.approx(above[:, cell].mean() / below.mean())
        # A little wider: percentiles of so few prompts are too narrow.
        assert drawn.low - 0.06 < ours.low[cell] < drawn.low + 0.01
        assert drawn.high - 0.01 < ours.high[cell] < drawn.high + 0.06
    # More cells than are resampled at once.
    many = ratio_of_means(np.repeat(above, 3000, axis=1).reshape(20, 2, 3000), below)
    assert many.low.shape == (2, 3000)
    np.testing.assert_allclose(many.high, ours.high[:, None] * np.ones(3000))


def test_no_ratio_and_no_interval_where_there_can_be_none() -> None:
    one = ratio_of_means(np.array([[1.0]]), np.array([2.0]))
    assert (float(one.value[0]), bool(np.isnan(one.low[0]))) == (0.5, True)
    nothing = ratio_of_means(np.zeros((3, 2)), np.zeros(3))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    both_signs = ratio_of_means(np.ones((4, 1)), np.array([5.0, -4.0, 5.0, -4.0]))
    assert both_signs.value[0] == 2.0
    assert np.isnan(both_signs.high[0])
    assert str(mean(np.array([0.5]))) == "0.50 (no interval)"


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ("z", "z")}, "expected at least one of resid_pre, .*, each once"),
        ({"sites": ("resid_prae",)}, "unknown site 'resid_prae'; did you mean 'resid_pre'"),
        ({"sites": ()}, "sites \\[\\]; expected at least one of"),
        ({"n_shots": 1}, "n_shots is 1; expected at least 2 \\(labels are shuffled\\), or corr"),
        ({"roles": "tokens"}, "roles='tokens' with 2 pairs of prompts; expected one"),
        ({"roles": ("final_arow",)}, "unknown role .prompt 0, clean. 'final_arow'; did you mean"),
        ({"roles": ("demo_2_y",)}, "unknown role .* 'demo_2_y'; did you mean"),
        ({"roles": (99,)}, "token 99 out of range"),
        ({"roles": ()}, "roles \\[\\]; expected at least one, each once"),
        ({"roles": ("query", "query")}, "each once"),
        ({"corruption": "task", "other_task": "to_upper"}, "other_task is the task itself"),
        ({"other_task": "to_lower"}, "other_task goes with corruption=.task., not .labels."),
        ({"n_prompts": 0}, "n_prompts is 0; expected at least 1"),
    ],
)  # fmt: skip
def test_mistakes(tiny_llama: HookedModel, options: dict, message: str) -> None:
    settings = {"n_prompts": 2, "n_shots": 2, "progress": False} | options
    with pytest.raises(InputError, match=message):
        patch_positions(tiny_llama, "to_upper", **settings)


def test_a_direction_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="unknown direction 'denoize'; did you mean 'denoise'"):
        check_direction("denoize")


def test_prompts_of_different_lengths_do_not_line_up_by_index(tiny_llama: HookedModel) -> None:
    pair = contrasts_of(tiny_llama, "to_upper", "task", 1)
    message = "prompt 0: the clean prompt has .* tokens, the corrupted one .*; expected .* 'query'"
    for roles in ("tokens", (0,)):
        with pytest.raises(InputError, match=message):
            patch_contrasts(tiny_llama, pair, roles=roles, progress=False)
    check_aligned(pair, ["demo_1_y"])
    shorter = contrasts_of(tiny_llama, "to_upper", "labels", 1, 1 + 1)[0]
    longer = contrasts_of(tiny_llama, "to_upper", "labels", 1, 3)[0]
    mixed = Contrast(longer.clean, shorter.corrupted, longer.answer, longer.rivals)
    with pytest.raises(InputError, match="unknown role .prompt 0, corrupted. 'demo_2_y'; did you"):
        check_aligned([mixed], ["demo_2_y"])


def test_no_contrasts_and_no_roles(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="no contrasts; expected at least one"):
        patch_contrasts(tiny_llama, [])
    pair = contrasts_of(tiny_llama, "to_upper", "labels", 1)[0]
    bare = type(pair.clean)("", pair.clean.tokens, ("",) * len(pair.clean))
    with pytest.raises(InputError, match="have no roles; expected .* roles='tokens'"):
        patch_contrasts(tiny_llama, [Contrast(bare, bare, pair.answer, pair.rivals)])


@pytest.mark.parametrize("tiny", ["gpt_neox"], indirect=True)
def test_a_site_that_the_model_lacks(tiny: HookedModel) -> None:
    with pytest.raises(InputError, match="has no site 'resid_mid'"):
        patch_positions(tiny, "to_upper", 2, 2, sites=("resid_pre", "resid_mid"), progress=False)


def test_a_result_asked_for_what_it_lacks() -> None:
    scan = scan_of()
    for arguments, message in (
        (("u", "z", "noise"), "unknown task 'u'"),
        (("t", "resid_pre", "noise"), "unknown site 'resid_pre'"),
        (("t", "z", "nois"), "did you mean 'noise'"),
        (("t", "z", "noise", "rank"), "unknown metric 'rank'. Choose from: logit_difference"),
    ):
        with pytest.raises(InputError, match=message):
            scan.effect(*arguments)


# --- files and figures --------------------------------------------------------------------------


def test_saved_and_loaded(tiny_llama: HookedModel, tmp_path: Path) -> None:
    scan = patch_positions(
        tiny_llama, ["to_upper", "to_lower"], 10, 2, corruption="task", direction="noise",
        sites=("mlp_out", "z"), roles=("query",), progress=False,
    )  # fmt: skip
    again = load_result(scan.save(tmp_path / "scan.nc"))
    assert isinstance(again, PositionScan)
    assert again.data.identical(scan.data)
    assert again.provenance == scan.provenance
    assert again.data.sizes["prompt"] == 10  # more than a batch
    assert scan.provenance["sites"] == ["mlp_out", "z"]
    assert scan.provenance["tasks"]["to_lower"]["other_task"] == "antonyms"
    asked = scan.data["clean_text"].str.split("x", "\n").isel(x=-1)
    assert bool((asked == scan.data["query"] + "->").all()) or bool(
        (asked == " " + scan.data["query"] + "->").all()
    )


def test_figure_has_every_role_and_direction() -> None:
    scan = scan_of()
    figure = scan.plot()
    assert len(figure.data) == 3 * 2
    for i, site in enumerate(scan.sites):
        for j, direction in enumerate(scan.directions):
            trace = figure.data[2 * i + j]
            effect = scan.effect("t", site, direction)["value"]
            effect = effect.isel(role=0).T if site == "z" else effect
            np.testing.assert_array_equal(np.array(trace.z), effect)
    named = ["demo 1: y", "demo 2: x", "query", "final →"]
    assert list(figure.layout.yaxis.ticktext) == named
    assert list(figure.layout.yaxis5.ticktext) == ["0", "1"]
    assert figure.layout.yaxis.autorange == "reversed"
    titles = [a.text for a in figure.layout.annotations]
    assert "attn_out, denoise" in titles
    assert "heads at final →, noise" in titles
    scale = figure.layout.coloraxis
    assert scale.cmin == -scale.cmax
    assert scale.cmax == 1  # the drawn numbers go further
    assert "restored or lost" in scale.colorbar.title.text
    assert len(figure.data[0].z) == len(figure.data[0].customdata) == len(named)


def test_roles_as_people_read_them() -> None:
    roles = ("demo_0_x", "demo_10_arrow", "demo_1_end", "query", "final_arrow", "3: demo_0_x")
    names = ["demo 1: x", "demo 11: →", "demo 2: end", "query", "final →", "3: demo_0_x"]
    assert [role_name(role) for role in roles] == names


def test_tokens_are_text_and_not_markup(tiny_llama: HookedModel, tmp_path: Path) -> None:
    scan = scan_of(("0: <img src=x>", "1: \\n"), "<i>t</i>")
    figure = scan.plot()
    assert figure.layout.yaxis.ticktext == ("0: &lt;img src=x&gt;", "1: \\n")
    assert "&lt;i&gt;t" in figure.layout.title.text
    html = export(figure, tmp_path / "figure.html").read_text()
    assert "<img src=x>" not in html
    assert "\\u003cimg" not in html
    assert "\\u003ci\\u003et" not in html
    pair = patch_positions(tiny_llama, "to_upper", 1, 2, roles="tokens", progress=False)
    roles = [str(role) for role in pair.data["role"].values]
    (contrast,) = contrasts_of(tiny_llama, "to_upper", "labels", 1)
    assert len(roles) == len(contrast.clean)
    text = [tiny_llama.to_string(t) for t in contrast.clean.tokens]
    at = contrast.clean.position("demo_0_y")
    assert roles[at] == f"{at}: {text[at]} | {tiny_llama.to_string(contrast.corrupted.tokens[at])}"
    assert roles[-1] == f"{len(roles) - 1}: {text[-1]}"
    assert sum(role.endswith(": \\n") for role in roles) == 2
    assert len(pair.plot().data[0].z) == len(roles)


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to do; expected --layer-scan, --position-scan, --component-scan or --mean-"),
        (["--layer-scan", "--position-scan"], "--layer-scan and --position-scan at once; expected"),
        (["--position-scan", "--sites", "resid"], "unknown site 'resid'; did you mean 'resid_"),
        (["--component-scan", "--n-shots", "1"], "n_shots is 1; expected at least 2"),
        (["--position-scan", "--corruption", "label"], "invalid choice 'label'"),
        (["--position-scan", "--direction", "up"], "invalid choice 'up'"),
        (["--position-scan", "--n-prompts", "0"], "n_prompts is 0"),
        (["--position-scan", "--corruption", "query", "--task", "to_upper", "--n-shots", "21"],
         "has 26 pairs, too few"),
        (["--position-scan", "--out", "figure.gif"], "unknown kind of figure '.gif'"),
    ],
)  # fmt: skip
def test_a_mistake_gives_exit_code_2_before_a_model_is_loaded(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(ModelOptions, "load", lambda _: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        __main__.main(options)
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("scan", "sites"),
    [("position", ["resid_pre"]), ("component", ["attn_out", "mlp_out", "z"])],
)
def test_a_scan_from_the_command_line(
    scan: str, sites: list[str], tiny_llama: HookedModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(ModelOptions, "load", lambda _: tiny_llama)
    monkeypatch.chdir(tmp_path)
    __main__.main(
        [f"--{scan}-scan", "--task", "to_upper", "--n-shots", "2", "--json", "--no-progress"]
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["figure"] == f"figures/{scan}_scan-to_upper-gemma-3-270m-n_shots_2.html"
    saved = load_result(printed["data"])
    assert isinstance(saved, PositionScan)
    assert saved.sites == sites
    assert saved.data.sizes["prompt"] == 16
    assert saved.directions == ["denoise", "noise"]
    assert saved.data.sizes["role"] == 2 * 3 + 2
    assert [row["site"] for row in printed["summary"]] == [s for s in sites for _ in range(2)]
    heads = [row["head"] for row in printed["summary"] if row["site"] == "z"]
    assert all(0 <= head < tiny_llama.n_heads for head in heads)
    if "z" in sites:
        assert saved.data["head_role"].values.tolist() == ["final_arrow"]
