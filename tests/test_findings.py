"""Findings: from numbers that show something the sentence, from numbers that do not no claim."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from made_results import scan_of

from icl_mech.answers import AnswerScores
from icl_mech.checkpoints import Checkpoints
from icl_mech.conflict import ConflictingTasks
from icl_mech.decodability import TaskDecodability
from icl_mech.failures import TaskVectorFailures
from icl_mech.finetune import Finetuning
from icl_mech.heads import FunctionVectors, HeadAblation, HeadAttribution
from icl_mech.lens import LogitLens, VectorLens
from icl_mech.localize import TaskMap
from icl_mech.patch import MeanPatching, PositionScan
from icl_mech.results import ROOMS, Result, few_queries, load_result
from icl_mech.synthetic import Emergence, emergence_over_seeds
from icl_mech.table import TaskTable
from icl_mech.variability import VectorVariability

N = 40
MODEL = {"model": "m", "seed": 0}
DATA = Path(__file__).parents[1] / "analyses" / "data"


def first(n: int) -> np.ndarray:
    """Right on the first `n` of `N` prompts."""
    return np.arange(N) < n


def queries(*names: str) -> tuple[tuple[str, str], list[list[str]]]:
    return ("task", "prompt"), [[f"{name} {i}" for i in range(N)] for name in names]


def stacked(rows: Sequence[Any]) -> np.ndarray:
    return np.stack([np.asarray(row) for row in rows])


# --- one kind after the other -------------------------------------------------------------------


def test_layer_scan() -> None:
    scan = scan_of("task")
    scan.data["reference_first_token"][:] = False
    assert scan.finding() == "θ works after blocks 3 and 4 and not from block 5 on"
    several = scan_of("a", "b")
    several.data["reference_first_token"][:] = False
    assert several.finding() == "θ works in 2 of 2 tasks, best after block 3"
    for name in ("first_token", "dev_first_token"):
        several.data[name].loc[{"task": "b"}] = False
    assert several.finding() == "θ is shown to work in 1 of 2 tasks, best after block 3"
    assert several.alone("b").finding() == "θ is not shown to work after any block"
    # Where the zero-shot prompt is as good, θ adds nothing.
    scan.data["reference_first_token"][:] = True
    assert scan.finding() == "θ is not shown to work after any block"


def test_layer_scan_says_when_theta_stops_only_where_that_is_shown() -> None:
    scan = scan_of("task")
    scan.data["reference_first_token"][:] = False
    # A little less at the last layer: not half, but not told apart from the best either.
    scan.data["first_token"].loc[{"vector": "theta", "layer": [3, 4]}] = False
    scan.data["first_token"].loc[{"vector": "theta", "layer": [3, 4], "prompt": slice(0, 9)}] = True
    scan.data["first_token"].loc[{"vector": "theta", "layer": 5, "prompt": slice(9, 13)}] = True
    assert scan.finding() == "θ works after blocks 3 and 4"


def test_table() -> None:
    table = TaskTable(scan_of(*"abcde").data, {**MODEL, "n_shots": 5})
    table.data["reference_first_token"].loc[{"reference": "regular"}] = True
    assert table.finding().startswith("θ keeps 100% [")
    assert table.finding().endswith("] of few-shot accuracy over 5 tasks")
    table.data["reference_first_token"].loc[{"reference": "regular"}] = False
    table.data["reference_first_token"].loc[{"reference": "baseline"}] = False
    # Nothing to keep a share of.
    assert table.finding() == "θ works in 5 of 5 tasks, best after block 3"
    assert table.alone("a").finding().startswith("θ works after blocks 3 and 4")


def answers(first_token: int, accepted: int, *tasks: str) -> AnswerScores:
    conditions = ["baseline", "hypothesis", "regular"]
    dims = ("task", "condition", "prompt")

    def right(n: int) -> np.ndarray:
        return stacked([[first(0), first(n), first(N)]] * len(tasks))

    data = {"first_token": (dims, right(first_token)), "accepted": (dims, right(accepted))}
    coords = {"task": list(tasks), "condition": conditions}
    return AnswerScores(xr.Dataset({**data, "query": queries(*tasks)}, coords), MODEL)


def test_answers() -> None:
    assert answers(36, 8, "t").finding() == "θ brings 90% of first tokens, but 20% of whole answers"
    assert answers(36, 35, "t").finding() == (
        "With θ, whole answers (88% right) are not told apart from first tokens (90%)"
    )
    assert answers(0, 0, "t").finding() == "θ is not shown to bring right answers, by first tokens"
    assert answers(36, 8, "t", "u").finding() == (
        "θ brings first tokens in 2 of 2 tasks, fewer whole answers in 2"
    )


def conflict(*injected: int) -> ConflictingTasks:
    """The first prompts follow the vector, the others the prompt."""
    pairs = [f"a:{chr(98 + i)}" for i in range(len(injected))]
    follows = stacked([first(n) for n in injected])[:, None]
    dims = ("pair", "condition", "prompt")
    data = xr.Dataset(
        {
            "follows_injected": (dims, follows),
            "follows_prompt": (dims, ~follows),
            "query": (("pair", "prompt"), queries(*pairs)[1]),
            "chosen_layer": ("pair", [9] * len(pairs)),
            "prompt_task": ("pair", ["a"] * len(pairs)),
            "injected_task": ("pair", [pair[2:] for pair in pairs]),
        },
        {"pair": pairs, "condition": ["injected"]},
    )
    return ConflictingTasks(data, {**MODEL, "undefined": {}, "tasks": ["a", "b", "c", "d"]})


def test_conflict() -> None:
    assert conflict(36).finding() == (
        "The vector's task wins, 90% to 10% of the answers, after block 9"
    )
    assert conflict(4).finding().startswith("The prompt's task wins, 90% to 10%")
    assert conflict(20).finding().startswith("Neither task is shown to win, 50% to 50%")
    three = conflict(36, 4, 20)
    assert three.finding() == (
        "The vector's task wins in 1 of 3 pairs, the prompt's in 1, and 1 are not told apart"
    )
    assert three.finding("c").startswith("The prompt's task wins")


def decodability(**credits: Sequence[float]) -> TaskDecodability:
    """Two tasks; of every layer the share of points that are decoded right."""
    dims = ("shots", "task", "point", "layer")

    def credit(shares: Sequence[float]) -> np.ndarray:
        at = stacked([first(round(N * share)) for share in shares]).T.astype(float)
        return np.stack([at, at])[None]

    arrays = {name: (dims, credit(shares)) for name, shares in credits.items()}
    n_layers = len(credits["credit"])
    half = np.tile(credit(credits["credit"]).mean((0, 1, 2)), (1, 2, 1))
    data = xr.Dataset(
        {
            **arrays,
            "half_td": (("shots", "half", "layer"), half),
            "query_id": (("task", "point"), np.tile(np.arange(N), (2, 1))),
        },
        {"shots": [5], "task": ["a", "b"], "layer": range(n_layers)},
    )
    return TaskDecodability(data, {**MODEL, "shared_inputs": True, "k": 3, "leave_out": "query"})


def test_decodability() -> None:
    found = decodability(credit=[0.5, 0.9, 1.0, 0.9])
    said = "The task can be read after block 2 (TD 1.00)"
    assert found.finding() == f"{said}, first above chance after block 1"
    low = [0.5, 0.5, 0.5, 0.5]
    assert decodability(credit=low).finding() == "The task is not shown to be readable at any layer"
    right = [0.5, 0.9, 1.0, 0.9]
    same = decodability(credit=right, shuffled_credit=right)
    assert same.finding() == f"{said}, from shuffled labels too"
    assert decodability(credit=right, shuffled_credit=low).finding().startswith(f"{said}, first")
    alone = decodability(credit=right, instruction_credit=right)
    assert alone.finding() == f"{said}, but the instruction alone gives it away"


def failures(*theta: int, few_shot: int = 36) -> TaskVectorFailures:
    tasks = [chr(97 + i) for i in range(len(theta))]
    right = stacked([[first(few_shot), first(0), first(n)] for n in theta])
    data = xr.Dataset(
        {
            "right": (("task", "condition", "prompt"), right),
            "prior_right": (("task", "prompt"), np.zeros((len(theta), N), bool)),
            "guess_right": (("task", "prompt"), np.zeros((len(theta), N))),
            "query": queries(*tasks),
        },
        {"task": tasks, "condition": ["few_shot", "zero_shot", "theta"]},
    )
    return TaskVectorFailures(data, MODEL)


def test_failures() -> None:
    assert (
        failures(18).finding() == "One vector does a part of the task (0.45 right, few-shot 0.90)"
    )
    assert failures(36).finding().startswith("One vector is not told from the prompt")
    assert failures(0).finding().startswith("One vector is not shown to beat frequent answers")
    assert failures(0, few_shot=0).finding().startswith("The prompt itself is not shown to work")
    assert failures(36, 18, 0, 0).finding() == (
        "What one vector does, of 4 tasks: 1 not told from the prompt, 1 in part, "
        "2 not shown to be done"
    )


def finetuning(before: int, after: int) -> Finetuning:
    right = stacked([[first(before)], [first(after)]])
    data = xr.Dataset(
        {"right": (("step", "task", "prompt"), right), "query": queries("t")},
        {"step": [0, 100], "task": ["t"]},
    )
    return Finetuning(data, {**MODEL, "trained_blocks": [0, 1, 2]})


def test_finetuning() -> None:
    what = "Tuning blocks 0 to 2"
    rose = f"{what} raises accuracy on held-out prompts from 0.20 to 0.90"
    assert finetuning(8, 36).finding() == rose
    assert finetuning(36, 8).finding().startswith(f"{what} lowers accuracy")
    assert finetuning(20, 21).finding() == (
        f"{what} is not shown to change accuracy on held-out prompts (0.53)"
    )


def ablation(top: int, *tasks: str) -> HeadAblation:
    n = len(tasks)
    random = np.broadcast_to(first(34)[None, :, None, None], (n, N, 1, 5))
    data = xr.Dataset(
        {
            "top_right": (("task", "prompt", "k"), stacked([first(top)[:, None]] * n)),
            "random_right": (("task", "prompt", "k", "draw"), random),
            "intact_right": (("task", "prompt"), stacked([first(36)] * n)),
            "ranked": (("task", "rank"), [["9.3", "1.0"]] * n),
            "query": queries(*tasks),
        },
        {"task": list(tasks), "k": [1]},
    )
    return HeadAblation(data, MODEL)


def test_ablation() -> None:
    assert ablation(0, "t").finding() == (
        "Accuracy falls from 0.90 to 0.00 without head 9.3 (random: 0.85)"
    )
    none = "The top heads are not shown to cost more accuracy than random ones"
    assert ablation(34, "t").finding() == none
    assert ablation(0, "t", "u").finding().startswith("In 2 of 2 tasks the top heads are shown to")


def attribution(strong: dict[tuple[int, int], float], *tasks: str) -> HeadAttribution:
    """Heads with a mean effect, among noise."""
    effect = np.random.default_rng(0).normal(0, 0.02, (len(tasks), N, 4, 3))
    for (layer, head), mean in strong.items():
        effect[:, :, layer, head] += mean
    data = xr.Dataset(
        {"aie": (("task", "prompt", "layer", "head"), effect), "query": queries(*tasks)},
        {"task": list(tasks)},
    )
    return HeadAttribution(data, MODEL)


def test_attribution() -> None:
    two = attribution({(1, 2): 0.3, (3, 0): 0.25, (2, 1): 0.2}, "t")
    assert two.finding() == "2 of 12 heads carry half of the helpful heads' effect: 1.2, 3.0"
    one = attribution({(1, 2): 0.3}, "t")
    assert one.finding() == "1 of 12 heads carries half of the helpful heads' effect: 1.2"
    assert attribution({}, "t").finding() == "No heads are shown to carry an effect"
    several = attribution({(1, 2): 0.3}, "t", "u")
    assert several.finding() == "Head 1.2 has the largest effect in 2 of 2 tasks"
    level = attribution({(1, 2): 0.3, (3, 0): 0.3}, "t", "u")
    assert level.finding() == "In no task is one head shown to have the largest effect"


def function_vectors(function: int, theta: int, *tasks: str) -> FunctionVectors:
    vectors, settings, n = ["function", "theta", "random_heads"], ["zero_shot", "shuffled"], 3
    at = [first(0), first(function), first(0)], [first(0), first(theta), first(0)]
    right = stacked([*at, [first(0)] * n])  # vector, layer, prompt
    dims = ("task", "setting", "vector", "layer", "prompt")
    every = np.broadcast_to(right, (len(tasks), 2, *right.shape))
    data = xr.Dataset(
        {
            "right": (dims, every),
            "dev_right": ((*dims[:-1], "dev_prompt"), every),
            "plain_right": (("task", "setting", "prompt"), np.zeros((len(tasks), 2, N), bool)),
            "query": queries(*tasks),
        },
        {"task": list(tasks), "setting": settings, "vector": vectors, "layer": range(n)},
    )
    return FunctionVectors(data, MODEL)


def test_function_vectors() -> None:
    said = "Zero-shot, the function vector brings 50% of the answers after block 1"
    assert function_vectors(20, 20, "t").finding() == said
    assert function_vectors(20, 40, "t").finding() == f"{said}; θ more: 100%"
    assert function_vectors(0, 40, "t").finding() == (
        "Zero-shot, the function vector is not shown to work"
    )
    assert function_vectors(20, 0, "t", "u").finding().endswith("beat random heads in 2 of 2 tasks")


def logit_lens(*never: int) -> LogitLens:
    """The answer is on top after block 1, but never in the first prompts."""
    tasks = [chr(97 + i) for i in range(len(never))]
    rank = stacked(
        [[np.full(N, 9), np.full(N, 9), np.where(first(n), 9, 0)] for n in never]
    )  # task, layer, prompt
    dims = ("task", "layer", "prompt", "target", "role")
    data = xr.Dataset(
        {
            "rank": (dims, rank[..., None, None]),
            "logprob": (dims, np.zeros((*rank.shape, 1, 1))),
            "query": queries(*tasks),
        },
        {"task": tasks, "layer": [-1, 0, 1], "target": ["answer"], "role": ["final_arrow"]},
    )
    return LogitLens(data, MODEL)


def test_logit_lens() -> None:
    assert logit_lens(4).finding() == "The answer becomes the top token after block 1"
    never = "In most prompts the answer becomes the top token after no block"
    assert logit_lens(38).finding() == never
    assert logit_lens(18).finding().startswith("The answer ends on top in 55% [")
    assert logit_lens(4, 38).finding() == (
        "In 1 of 2 tasks the answer becomes the top token, after block 1 (medians of prompts)"
    )
    assert logit_lens(38, 38).finding() == ""


def vector_lens(naming: float, *tasks: str) -> VectorLens:
    """Of the top tokens, how many name the task, on average; other tasks: none."""
    noise = np.random.default_rng(0).integers(0, 2, (len(tasks), N))
    counts = np.zeros((len(tasks), N, 2, 2, 1, 4))  # vector, layer, among, kind
    counts[:, :, 0, 1, 0, 0] = (naming + noise) * (naming > 0)
    kinds = ["naming", "answers", "inputs", "other_naming"]
    data = xr.Dataset(
        {"count": (("task", "prompt", "vector", "layer", "among", "kind"), counts)},
        {
            "task": list(tasks),
            "vector": ["own", "random"],
            "layer": [3, 6],
            "among": [10],
            "kind": kinds,
        },
    )
    return VectorLens(data, {**MODEL, "naming": {task: ["x"] * (task != "none") for task in tasks}})


def test_vector_lens() -> None:
    named = vector_lens(2, "t").finding()
    assert named.endswith("of the top 10 tokens name the task after block 6")
    assert 2.3 <= float(named.split()[0]) <= 2.7
    assert vector_lens(0, "t").finding() == "The top tokens are not shown to name the task"
    assert vector_lens(2, "none").finding() == ""
    assert vector_lens(2, "t", "u").finding() == (
        "The top tokens are shown to name the task in 2 of 2 tasks"
    )


RULE = {"fraction": 0.5, "min_rise": 0.1, "min_found": 0.95}


def curves(tasks: Sequence[str], learns: bool = True) -> dict[str, Any]:
    """Encoded from block 2 on, transferred after blocks 2 to 4, decoded from block 5 on."""
    layers = np.arange(8)
    right = first(38)[:, None]

    def steps(on: np.ndarray) -> np.ndarray:
        return np.broadcast_to((right & on).astype(float), (len(tasks), N, 8))

    dims = ("task", "prompt", "layer")
    return {
        "encoding": (("task", "point", "layer"), steps(layers >= 2)),
        "transfer": (dims, steps((layers >= 2) & (layers <= 4))),
        "lens": (dims, steps(layers >= 5)),
        "regular": (dims[:2], stacked([first(38 * learns)] * len(tasks))),
        "baseline": (dims[:2], stacked([first(0)] * len(tasks))),
        "query": (("task", "point"), queries(*tasks)[1]),
    }


def test_task_map() -> None:
    def found(*tasks: str, learns: bool = True) -> str:
        data = xr.Dataset(curves(tasks, learns), {"task": list(tasks), "layer": range(8)})
        return TaskMap(data, {**MODEL, "rule": RULE}).finding()

    assert found("t") == "The task is formed after block 2 and decoded after block 5"
    assert found("t", "u") == "Formed after block 2, decoded after block 5"
    assert found("t", learns=False) == "No in-context learning is shown that could be localised"


def checkpoints(encoding: Sequence[int], accuracy: Sequence[int]) -> Checkpoints:
    """Right of the `N` prompts at every checkpoint."""
    td = stacked([first(n)[None, :, None].astype(float) for n in encoding])
    data = xr.Dataset(
        {
            "encoding": (("step", "task", "point", "layer"), td),
            "regular": (("step", "task", "prompt"), stacked([[first(n)] for n in accuracy])),
            "half_td": (("step", "half", "layer"), np.ones((len(encoding), 2, 1))),
            "query": (("task", "point"), queries("t")[1]),
            "query_half": (("task", "point"), np.arange(N)[None] % 2),
        },
        {"step": [0, 10, 100, 1000][: len(encoding)], "task": ["t"], "layer": [0]},
    )
    return Checkpoints(data, MODEL)


def test_checkpoints() -> None:
    early, late, flat = [0, 38, 38, 38], [0, 0, 0, 38], [2, 2, 2, 2]
    assert checkpoints(early, late).finding().startswith("Encoding rises before accuracy: half by")
    assert checkpoints(late, early).finding().startswith("Encoding rises after accuracy: half by")
    assert "which first is not told" in checkpoints(early, early).finding()
    assert checkpoints(early, flat).finding().endswith(", accuracy is not shown to")
    assert checkpoints(flat, flat).finding() == "Neither encoding nor accuracy is shown to rise"


def means(own_kept: int, followed: int) -> MeanPatching:
    """What is right with the other task's mean written: the own answer, the other task's."""
    tasks, injected = ["a", "b"], ["a", "b"]
    right = np.zeros((2, N, 1, 2, 2, 2), bool)  # task, prompt, mode, layer, injected, answered
    before = np.zeros((2, N, 2), bool)
    for own in (0, 1):
        other = 1 - own
        before[own, :, own] = first(36)
        right[own, :, 0, :, :, own] = first(36)[:, None, None]
        right[own, :, 0, 1, other, own] = first(own_kept)
        right[own, :, 0, 1, other, other] = first(followed)
    data = xr.Dataset(
        {
            "right": (("task", "prompt", "mode", "layer", "injected", "answered"), right),
            "right_before": (("task", "prompt", "answered"), before),
            "query": queries(*tasks),
        },
        {
            "task": tasks,
            "mode": ["replace"],
            "layer": [8, 9],
            "injected": injected,
            "answered": tasks,
        },
    )
    return MeanPatching(data, {**MODEL, "null": None, "n_queries": N})


def test_mean_patching() -> None:
    assert means(4, 30).finding() == (
        "Another task's mean (block 9) makes 75% of the answers its own, from 0%"
    )
    assert means(4, 0).finding() == (
        "Another task's mean costs 0.80 of accuracy after block 9; no more is shown"
    )
    assert means(36, 0).finding() == "No other task's mean is shown to change the answers"


def positions(query: Sequence[float], arrow: Sequence[float], gap: float = 4.0) -> PositionScan:
    """The share that each of two roles restores, by layer."""
    noise = np.random.default_rng(0).normal(0, 0.1, (N, 1, 1))
    patched = gap * stacked([query, arrow])[None] + noise
    data = xr.Dataset(
        {
            "logit_difference": (
                ("task", "site", "direction", "prompt", "role", "layer"),
                patched[None, None, None],
            ),
            "clean_logit_difference": (("task", "prompt"), np.full((1, N), gap) + noise[:, 0].T),
            "corrupted_logit_difference": (("task", "prompt"), np.zeros((1, N))),
            "query": queries("t"),
        },
        {
            "task": ["t"],
            "site": ["resid_pre"],
            "direction": ["denoise"],
            "role": ["query", "final_arrow"],
            "layer": range(len(query)),
        },
    )
    return PositionScan(data, MODEL)


def test_positions() -> None:
    moved = positions([1, 1, 0.4, 0], [0, 0, 0.4, 1])
    assert moved.finding() == (
        "Most of the difference is at query up to block 1 and at final → from block 3 on "
        "(resid_pre)"
    )
    spread = positions([0.3] * 4, [0.3] * 4)
    assert spread.finding() == "No single token is shown to hold most of the difference (resid_pre)"
    assert positions([1, 1], [0, 0], gap=0.0).finding() == ""
    few = moved.data.isel(prompt=slice(0, 5))
    assert PositionScan(few, MODEL).finding() == ""
    assert PositionScan(few, MODEL).few() == "few queries: t 5; intervals are wide"


def variability(apart: float) -> VectorVariability:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, N, 6))
    vectors[0, :, 0] += apart
    vectors[1, :, 1] += apart
    flat = vectors.reshape(2 * N, 6)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    pairs = (1 - flat @ flat.T)[np.triu_indices(2 * N, 1)]
    data = xr.Dataset(
        {
            "distance": (("shots", "form", "layer", "pair"), pairs[None, None, None]),
            "dev_right": (("task", "dev_vector", "layer"), np.ones((2, 5, 1), bool)),
            "dev_query": (("task", "dev_vector"), [[f"{t}{i}" for i in range(5)] for t in "ab"]),
            "query": (("task", "vector"), queries("a", "b")[1]),
            "norm": (("task", "vector"), np.ones((2, N))),
        },
        {"shots": [5], "form": ["raw"], "layer": [0], "task": ["a", "b"]},
    )
    return VectorVariability(data, MODEL)


def test_variability() -> None:
    found = variability(6.0)
    assert found.finding().startswith("Task vectors lie apart by task after block 0 (silhouette 0.")
    assert found.finding(task="a").startswith("The task's vectors lie apart")
    assert variability(0.0).finding() == (
        "Task vectors are not shown to lie apart by task after block 0"
    )


def shipped(seed: int) -> Emergence:
    run = load_result(DATA / f"small-seed{seed}.nc")
    assert isinstance(run, Emergence)
    return run


def untaught(run: Emergence) -> Emergence:
    """As if training had changed nothing."""
    data = run.data.copy(deep=True)
    for name, array in data.items():
        if "step" in array.dims:
            data[name] = array.isel(step=0, drop=True).broadcast_like(array).transpose(*array.dims)
    return Emergence(data, run.provenance)


def test_emergence() -> None:
    learnt = "This run learnt to encode both bases (TD 0.95), and to use them"
    assert shipped(0).finding() == learnt
    assert untaught(shipped(0)).finding() == (
        "This run is not shown to encode, or to use, any of 2 bases"
    )


def test_emergence_over_seeds() -> None:
    three = emergence_over_seeds([shipped(seed) for seed in range(3)])
    lead = three.lead(over="use")
    assert (lead.low > 0 or lead.high < 0) == ("the use of the task by" in three.finding())
    assert three.few() == "few seeds: 3; intervals are wide"
    none = emergence_over_seeds([untaught(shipped(seed)) for seed in range(3)])
    assert none.finding() == "Which comes first, encoding or the use of the task, is not told"


def test_every_kind_decides_for_itself() -> None:
    for module in set(ROOMS.values()):
        import_module(module)
    kinds = Result._kinds
    assert {k for k in ROOMS if "finding" in vars(kinds[k])} == set(ROOMS)


# --- few queries ----------------------------------------------------------------------------------


def test_few_queries_of_many_tasks_are_counted() -> None:
    assert few_queries({"a": (6, 6), "b": (6, 6)}) == (
        "few queries: 6 per task; intervals are wide"
    )
    counts = {f"task {i}": (8, 50) for i in range(5)} | {"many": (50, 50)}
    assert few_queries(counts) == (
        "few queries: 5 of 6 tasks, 8 at least in 50 prompts; intervals are over queries"
    )
