"""Generates answers whose first tokens follow demonstrations and whose later tokens do not."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.answers.text_scores import judge_text
from icl_mech.errors import InputError
from icl_mech.model import AnyEdit, Edit, HookedModel, as_array, check_model
from icl_mech.progress import ProgressBar, progress_bar
from icl_mech.progressive.plan import (
    NOTHING,
    STATES,
    ProgressivePlan,
    ProgressiveSettings,
    ProgressiveTask,
    plan_progressive,
)
from icl_mech.progressive.result import SCORES, ProgressiveGeneration
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Prompt,
    accepted,
    in_context,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.vector_methods.forming import written
from icl_mech.vector_methods.material import Material
from icl_mech.vector_methods.methods import METHODS, form_step, refuse_methods
from icl_mech.vector_methods.plan import USUAL
from icl_mech.vectors import answer_logprob, choose_layer

#: Tokens that a generation may take beyond the longest accepted answer.
SPARE_TOKENS = 2
#: Edits by what replaces the demonstrations.
Kept = dict[str, list[Edit] | None]
#: A stop text that generated texts do not contain, so that timed generations do not end early.
_NEVER = "\0"


def progressive_generation(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 20,
    n_shots: int = 5,
    seed: int = 0,
    *,
    first_tokens: Sequence[int] = (0, 1, 2, 3),
    methods: str | Sequence[str] = USUAL,
    n_blocks: int | None = None,
    n_positions: int = 5,
    timed_tokens: int = 16,
    n_rounds: int = 3,
    n_dev: int | None = None,
    n_sets: int = 10,
    n_dummies: int = N_DUMMIES,
    n_steps: int = 40,
    batch_size: int = 12,
    learning_rate: float = 0.05,
    train_layers: Sequence[int] | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> ProgressiveGeneration:
    """Generate the first k answer tokens with demonstrations, and the others without them.

    PICA (arXiv 2503.09958) claims that demonstrations are needed at the first answer tokens only.
    Three things are measured. First, the distance between the next-token distributions of the
    prompt without demonstrations and of the few-shot prompt, at each token of the right answer and
    of the template's stop text (KL in nats, total variation; the preceding tokens are those of the
    right answer). Second, whole answers whose first k tokens are generated with demonstrations;
    then these are dropped (`model.generate(..., demonstrations_for=k)`). They are replaced by
    nothing, by the separator's states (the attention outputs at the last arrow of the few-shot
    prompt in the first blocks), or by a task vector. (The paper writes the attention outputs and
    embeddings of all separators; without demonstrations only the last arrow is left.) Third, tokens
    per second against k.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        first_tokens: the numbers k.
        methods: ways to get a vector, as in `compare_vectors`; may be empty.
        n_blocks: number of first blocks whose states are kept; by default the best on dev prompts.
        n_positions, timed_tokens, n_rounds: see `ProgressiveSettings`.
        n_dev, n_sets, n_dummies, n_steps, batch_size, learning_rate, train_layers: as in
            `compare_vectors`.
        template, leading_space, instruction: as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a method or a count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.progressive_generation(
        ...     model, "present_past", 2, 2, first_tokens=[0, 1], methods=[], timed_tokens=2,
        ...     n_rounds=1, progress=False)
        >>> found.kept
        ['nothing', 'states']
    """
    check_model(model)
    settings = ProgressiveSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        first_tokens=tuple(first_tokens),
        methods=tuple([methods] if isinstance(methods, str) else methods),
        n_blocks=n_blocks,
        n_positions=n_positions,
        timed_tokens=timed_tokens,
        n_rounds=n_rounds,
        n_dev=n_dev,
        n_sets=n_sets,
        n_dummies=n_dummies,
        n_steps=n_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        train_layers=None if train_layers is None else tuple(train_layers),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_progressive(model, plan_progressive(tasks, settings), progress)


def measure_progressive(
    model: HookedModel, plan: ProgressivePlan, progress: bool = True
) -> ProgressiveGeneration:
    """Run a plan of `plan_progressive`: what `progressive_generation` does after prompts are drawn.

    Raises:
        InputError: as `progressive_generation`.
        ModelError: as `progressive_generation`.
    """
    s = plan.settings
    model.check_site("attn_out")
    if s.n_blocks is not None and s.n_blocks > model.n_layers:
        raise InputError(
            f"n_blocks is {s.n_blocks}; expected 1 to {model.n_layers}, the blocks of {model.name}"
        )
    refuse_methods(model, [of.task for of in plan.tasks], s.methods)
    steps = len(plan.tasks) * (len(s.methods) + 2 + len(s.first_tokens) + s.n_rounds)
    with progress_bar(steps, "steps", progress) as bar:
        runs = [_Measurement(model, of, s, bar) for of in plan.tasks]
        parts = [run.measured() for run in runs]
    provenance = {
        "method": "progressive_generation (PICA, arXiv 2503.09958)",
        **model.provenance(),
        **s.recorded(),
        "papers": {name: METHODS[name].paper for name in s.methods},
        "tasks": {run.of.task.name: run.about for run in runs},
        "filters": "none: every prompt counts",
    }
    return ProgressiveGeneration(over_tasks(parts, [of.task.name for of in plan.tasks]), provenance)


class _Measurement:
    """One task on one model."""

    def __init__(
        self, model: HookedModel, of: ProgressiveTask, s: ProgressiveSettings, bar: ProgressBar
    ) -> None:
        self.model, self.of, self.s, self.bar = model, of, s, bar
        self.encoder = model.encoder(s.template, [p.y for p in of.task.pairs], s.leading_space)
        self.few, self.zero = in_context(self.encoder, of.test), zero_shot(self.encoder, of.test)
        self.answers = accepted(self.encoder, self.zero, of.test)
        self.about: dict[str, Any] = {
            "n_pairs": len(of.pairs),
            "leading_space": self.encoder.template.leading_space,
            "notes": {},
        }

    def measured(self) -> xr.Dataset:
        """Divergence by answer token, whole answers, and speed."""
        states, n_blocks = self._states()
        edits: Kept = {NOTHING: None, STATES: states}
        layers = {NOTHING: np.nan, STATES: float(n_blocks - 1)}
        for name in self.s.methods:
            edits[name], layers[name] = self._vector(name)
        arrays = [self._divergence(edits), self._texts(edits), self._speed()]
        said = xr.Dataset(
            {
                "layer": ("kept", [layers[name] for name in edits]),
                "query": ("prompt", [e.query.x for e in self.of.test]),
                "answer": ("prompt", [e.query.y for e in self.of.test]),
                "n_queries": ((), self.of.n_queries),
            },
            coords={"kept": list(edits)},
        )
        return xr.merge([*arrays, said])

    # --- what is kept ----------------------------------------------------------------------------

    def _states(self) -> tuple[list[Edit], int]:
        """Edits with the few-shot attention outputs at the last arrow, and how many blocks."""
        self.bar.set_description(f"{self.of.task.name}: states")
        n = self.s.n_blocks or self._best_number()
        self.bar.update()
        return self._states_of(self.few, n), n

    def _states_of(self, prompts: Sequence[Prompt], n_blocks: int) -> list[Edit]:
        values = self.model.capture(prompts, ["final_arrow"], "attn_out")[:, 0]
        return [Edit(n, values[:, n], "attn_out", "final_arrow") for n in range(n_blocks)]

    def _best_number(self) -> int:
        """The number of first blocks with which most dev prompts are answered right."""
        dev = self.of.dev
        states = self._states_of(in_context(self.encoder, dev), self.model.n_layers)
        prompts = zero_shot(self.encoder, dev)
        answers = accepted(self.encoder, prompts, dev).first_tokens
        edits = [states[: n + 1] for n in range(self.model.n_layers)]
        read = self.model.evaluate(prompts, edits, answers)
        queries = np.array([e.query.x for e in dev])
        return choose_layer(read.right, answer_logprob(read), queries).at + 1

    def _vector(self, name: str) -> tuple[list[Edit], float]:
        """A method's vector as edits of the test prompts, and its layer."""
        of, s = self.of, self.s
        material = Material.of(of.task, self.encoder, of.pairs, of.dev, s)
        vector = form_step(self.model, name, material, s, self.bar, self.about["notes"])
        assert vector.layer is not None
        edits = written(vector, vector.layer, len(of.test), METHODS[name].per_set)
        return edits, float(vector.layer)

    # --- measuring -------------------------------------------------------------------------------

    def _divergence(self, edits: Kept) -> xr.Dataset:
        """KL and total variation from the few-shot prompt at each token of the right answers."""
        self.bar.set_description(f"{self.of.task.name}: divergence")
        stop = self.encoder.template.stop
        ids = [
            self.encoder.answer_tokens(prompt, [e.query.y + stop])[0]
            for prompt, e in zip(self.zero, self.of.test, strict=True)
        ]
        shape = (len(edits), self.s.n_positions, len(ids))
        kl, apart = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
        for i in range(self.s.n_positions):
            rows = [row for row, tokens in enumerate(ids) if len(tokens) > i]
            if not rows:
                break
            few, bare = (
                [_continued(prompts[row], ids[row][:i]) for row in rows]
                for prompts in (self.few, self.zero)
            )
            here = [edit and [e.of_prompts(rows) for e in edit] for edit in edits.values()]
            found = self._distances(few, bare, here)
            kl[:, i, rows], apart[:, i, rows] = (as_array(of).T for of in found)
        self.bar.update()
        dims = ("kept", "position", "prompt")
        return xr.Dataset(
            {
                "kl": (dims, kl, {"units": "nats"}),
                "total_variation": (dims, apart),
                "n_answer_tokens": ("prompt", [len(tokens) for tokens in ids]),
            },
            coords={"kept": list(edits), "position": np.arange(self.s.n_positions)},
        )

    def _distances(
        self, few: list[Prompt], bare: list[Prompt], edits: Sequence[AnyEdit]
    ) -> tuple[Float[Tensor, "prompt edit"], Float[Tensor, "prompt edit"]]:
        own = self.model.last_streams(few, [None])[:, 0]
        return self.model.vocabulary.distances(own, self.model.last_streams(bare, edits))

    def _texts(self, edits: Kept) -> xr.Dataset:
        """Whole answers, with every number of first tokens and with demonstrations throughout."""
        ids = [
            tokens
            for prompt, of in zip(self.zero, self.answers.texts, strict=True)
            for tokens in self.encoder.answer_tokens(prompt, of)
        ]
        n_new, stop = max(map(len, ids)) + SPARE_TOKENS, self.encoder.template.stop
        found = []
        for k in self.s.first_tokens:
            self.bar.set_description(f"{self.of.task.name}: {k} tokens with demonstrations")
            every = list(edits.values())
            found.append(self.model.generate(self.few, every, n_new, stop, demonstrations_for=k))
            self.bar.update()
        few = self.model.generate(self.few, [None], n_new, stop)
        dims = ("kept", "first_tokens", "prompt")
        texts = np.array(
            [[[g.text for g in row] for row in of] for of in found], dtype=object
        ).transpose(2, 0, 1)
        few_texts = np.array([row[0].text for row in few], dtype=object)
        said: dict[str, Any] = {
            # netCDF would end a string at a zero byte.
            "text": (dims, _plain(texts)),
            "few_text": ("prompt", _plain(few_texts)),
        }
        for score in SCORES:
            said[score] = (dims, self._judged(texts, score))
            said[f"few_{score}"] = ("prompt", self._judged(few_texts, score))
        return xr.Dataset(said, coords={"first_tokens": list(self.s.first_tokens)})

    def _judged(self, texts: np.ndarray, score: str) -> np.ndarray:
        """Whether texts are right, `[..., prompt]`."""
        right = np.zeros(texts.shape, dtype=bool)
        for at in np.ndindex(texts.shape):
            right[at] = judge_text(str(texts[at]), self.answers.texts[at[-1]])[score]
        return right

    def _speed(self) -> xr.Dataset:
        """Seconds and tokens of timed generations, each number of first tokens in turn."""
        ks: list[int | None] = [*self.s.first_tokens, None]
        seconds = np.zeros((len(ks), self.s.n_rounds))
        tokens = np.zeros((len(ks), self.s.n_rounds), dtype=int)
        for turn in range(self.s.n_rounds):
            self.bar.set_description(f"{self.of.task.name}: speed")
            for i, k in enumerate(ks):
                begun = time.perf_counter()
                found = self.model.generate(
                    self.few, [None], self.s.timed_tokens, _NEVER, demonstrations_for=k
                )
                seconds[i, turn] = time.perf_counter() - begun
                tokens[i, turn] = sum(len(row[0].tokens) for row in found)
            self.bar.update()
        dims = ("first_tokens", "round")
        return xr.Dataset(
            {
                "seconds": (dims, seconds[:-1], {"units": "s"}),
                "timed": (dims, tokens[:-1]),
                "few_seconds": ("round", seconds[-1], {"units": "s"}),
                "few_timed": ("round", tokens[-1]),
                "few_length": ((), np.mean([len(p) for p in self.few])),
                "bare_length": ((), np.mean([len(p) for p in self.zero])),
            }
        )


def _plain(texts: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda text: text.replace("\0", "\ufffd"), otypes=[object])(texts)


def _continued(prompt: Prompt, tokens: Sequence[int]) -> Prompt:
    """The prompt with the first tokens of an answer after it."""
    return Prompt(
        prompt.text, (*prompt.tokens, *tokens), (*prompt.roles, *["answer"] * len(tokens))
    )
