"""Summaries and figures can be read: one small result of every kind."""

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from html import escape, unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from tiny_models import answering_bridge, answering_task, random_model, saved

import icl_mech as im
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.plotting.style import DARK, INK, PAPER
from icl_mech.results import ROOMS, Result, TaskResult, load_result
from icl_mech.shown import with_height
from icl_mech.synthetic import Emergence, emergence_over_seeds

#: A table of more columns is not read in a terminal.
MOST = 12
SHIPPED = sorted((Path(__file__).parents[1] / "analyses" / "data").glob("small-seed*.nc"))
VERBS = ["to_upper", "to_lower"]
FEW: dict[str, Any] = {"n_prompts": 4, "n_shots": 2, "progress": False}

#: How each kind is made on a model that does `answering_task`.
MADE: dict[str, Callable[[HookedModel], Result]] = {
    "AnswerScores": partial(im.answer_scores, tasks="to_upper", **FEW),
    "Checkpoints": lambda model: im.over_checkpoints(
        {1: lambda: model, 2: lambda: model}, VERBS, n_points=12, **FEW
    ),
    "ConflictingTasks": partial(im.conflicting_tasks, tasks=[("to_upper", "next_letter")], **FEW),
    "Decoder": partial(
        im.find_decoder, tasks=answering_task(), layer=0, n_draws=2, **FEW | {"n_prompts": 14}
    ),
    "Emergence": lambda _: _last_steps(SHIPPED[0]),
    "EmergenceOverSeeds": lambda _: emergence_over_seeds(map(_last_steps, SHIPPED[:2])),
    "Finetuning": lambda _: _finetuned(),
    "FunctionVectors": partial(im.function_vectors, tasks=answering_task(), n_heads=(1, 2), **FEW),
    "HeadAblation": partial(im.head_ablation, tasks=answering_task(), n_draws=2, **FEW),
    "ContextMasking": partial(im.context_masking, tasks="to_upper", **FEW),
    "HeadAttribution": partial(
        im.head_attribution,
        tasks=answering_task(),
        n_clean=2,
        methods=("aie", "attribution"),
        **FEW,
    ),
    "KnowledgeConflict": partial(
        im.knowledge_conflict,
        tasks=VERBS,
        methods=["theta"],
        n_sets=2,
        **FEW,
    ),
    "LabelScores": partial(
        im.label_scores,
        tasks="sentences/sentiment",
        methods=["theta"],
        n_sets=2,
        **FEW,
    ),
    "LayerScan": partial(im.layer_scan, tasks="to_upper", **FEW),
    "LogitLens": partial(im.logit_lens, tasks="to_upper", **FEW),
    "MeanPatching": partial(im.mean_patching, n_mean=4, **FEW),
    "Patchscope": partial(
        im.patchscope, tasks="to_upper", invitations=["repeat"], max_new_tokens=2, **FEW
    ),
    "PositionScan": partial(im.patch_positions, tasks="to_upper", **FEW),
    "ProgressiveGeneration": partial(
        im.progressive_generation,
        tasks=VERBS,
        methods=["theta"],
        first_tokens=(0, 1),
        n_sets=2,
        timed_tokens=1,
        n_rounds=1,
        **FEW,
    ),
    "TaskDecodability": partial(im.task_decodability, n_prompts=12, n_shots=2, k=3, progress=False),
    "TaskMap": partial(im.localize, tasks=answering_task(), n_points=12, **FEW),
    "TaskTable": partial(im.task_table, tasks=VERBS, **FEW),
    "TaskVectorFailures": partial(
        im.task_vector_failures, tasks="lookup_once", repair_layers=[1], **FEW
    ),
    "VectorComparison": partial(
        im.compare_vectors,
        tasks=VERBS,
        methods=["theta", "icv", "learned"],
        n_sets=2,
        n_steps=2,
        batch_size=2,
        **FEW,
    ),
    "VectorLens": partial(im.vector_lens, tasks="to_upper", **FEW),
    "VectorTransfer": partial(
        im.vector_transfer, tasks=VERBS, formats=["arrow", "qa+instruction"], k=2, **FEW
    ),
    "VectorVariability": partial(im.vector_variability, tasks=VERBS, **FEW),
}
#: Quoted where a run has them: these have not.
MISSING = {"MeanPatching": {"null"}}


def _last_steps(path: Path) -> Emergence:
    """The last two checkpoints: every one takes seconds."""
    run = load_result(path)
    assert isinstance(run, Emergence)
    return Emergence(run.data.isel(step=slice(-2, None)), run.provenance)


def _finetuned() -> Result:
    """Of a model that is saved first: what is trained is read from a folder."""
    with TemporaryDirectory() as folder:
        base = saved(random_model("llama"), Path(folder) / "base")
        run: dict[str, Any] = {"n_steps": 2, "batch_size": 3, "n_checkpoints": 2}
        return im.finetune(base, "letters", folder=Path(folder) / "run", **run, **FEW)


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return HookedModel(answering_bridge(), name="answering")


def test_no_kind_is_forgotten() -> None:
    assert set(MADE) == set(ROOMS)


@pytest.fixture(scope="module")
def made(answering: HookedModel) -> Callable[[str], Result]:
    """A result of each kind, made once."""
    return cache(lambda kind: MADE[kind](answering))


@pytest.fixture(scope="module")
def drawn(made: Callable[[str], Result]) -> Callable[[str], go.Figure]:
    """The figure of a result of each kind, drawn once; tests must not change it."""
    return cache(lambda kind: made(kind).plot())


@pytest.mark.parametrize("kind", MADE)
def test_a_summary_can_be_read(kind: str, made: Callable[[str], Result]) -> None:
    result = made(kind)
    assert type(result).__name__ == kind
    narrow, full = result.summary(), result.full_summary()
    assert 4 <= len(narrow.columns) <= MOST
    assert narrow.equals(full[list(narrow.columns)])
    # A name that no run has would never be missed.
    assert set(result.QUOTED) - set(full.columns) == MISSING.get(kind, set())


@pytest.mark.parametrize("kind", MADE)
def test_a_figure_says_what_was_found_and_where_prompts_are_few(
    kind: str, made: Callable[[str], Result], drawn: Callable[[str], go.Figure]
) -> None:
    result, figure = made(kind), drawn(kind)
    title, below = (
        unescape(re.sub(r"</?b>", "", said.replace("<br>", " ")))
        for said in (figure.layout.title.text, figure.layout.title.subtitle.text)
    )
    assert title == result.finding() or (not result.finding() and "?" in title)
    assert result.few() in below
    if result.finding():
        assert result.finding() in repr(result)
        assert escape(result.finding()) in result._repr_html_()


@pytest.mark.parametrize("kind", MADE)
def test_a_figure_is_as_high_and_of_the_task_as_asked(
    kind: str, made: Callable[[str], Result], drawn: Callable[[str], go.Figure]
) -> None:
    result = made(kind)
    for height in (0, -5, 10):
        with pytest.raises(InputError, match=f"height is {height}; expected pixels"):
            with_height(drawn(kind), height)
    if not isinstance(result, TaskResult):
        assert result.plot(height=1234).layout.height == 1234
        return
    for task in result.tasks:
        figure = result.plot(height=1234, task=task)
        assert figure.layout.height == 1234
        assert task.rpartition("/")[2] in figure.to_json()
    with pytest.raises(InputError, match="unknown task '" + result.tasks[0][:-1]):
        result.plot(task=result.tasks[0][:-1])


@pytest.mark.parametrize("kind", MADE)
def test_text_can_be_read_on_light_pages_and_on_dark_ones(
    kind: str, drawn: Callable[[str], go.Figure]
) -> None:
    figure = drawn(kind).to_plotly_json()
    assert figure["layout"]["paper_bgcolor"] == figure["layout"]["plot_bgcolor"] == PAPER
    colours = set(text_colours(figure["layout"]))
    for trace in figure["data"]:
        # Text in maps and bars stands on their own colours.
        if trace["type"] not in ("heatmap", "bar"):
            colours |= set(text_colours(trace))
    assert INK in colours
    for colour in colours:
        assert contrast(colour, PAPER) >= 4.5, colour
        assert contrast(DARK.get(colour, colour), DARK[PAPER]) >= 4.5, colour


def text_colours(part: Any) -> Iterator[str]:
    """Colours of text that has no background of its own."""
    if isinstance(part, (list, tuple)):
        for each in part:
            yield from text_colours(each)
    elif isinstance(part, dict) and "bgcolor" not in part:
        for name, value in part.items():
            if name.endswith("font") and "color" in value:
                yield value["color"]
            elif name != "template":
                yield from text_colours(value)


def contrast(one: str, other: str) -> float:
    """Of two colours (WCAG 2.1): 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)
