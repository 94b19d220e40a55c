"""Check a model: is it supported, do edits act in it, and do both engines agree?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from icl_mech.check.acting import acts, restores
from icl_mech.check.ask import Asked, ask
from icl_mech.check.engines import Twins, broken, compare, speeds, twins
from icl_mech.check.facts import Facts
from icl_mech.check.plan import CheckPlan, CheckSettings, plan
from icl_mech.check.result import ModelSupport, Row
from icl_mech.check.trials import Trials, adding, contrasting, restoring, timed
from icl_mech.errors import ModelError
from icl_mech.model import Edit, HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, in_context
from icl_mech.tasks import Tasks


def check_model_support(
    model: HookedModel,
    tasks: Tasks = "country_capital",
    n_prompts: int = 2,
    n_shots: int = 3,
    seed: int = 0,
    *,
    n_edits: int = 100,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> ModelSupport:
    """Report how a model is run, and test on few-shot prompts whether its numbers can be trusted.

    - Both engines must give the same log probabilities for edits at every site. (If only the plain
      engine runs the model, it must give the same numbers in batches and one by one.)
    - Adding a vector as large as the activation must change the output, at every site and in every
      block. If it does not, the hook has no effect, which could be mistaken for a finding.
    - An activation written over itself must change nothing. It is read by an ordinary forward pass.
    - The speed of edits is measured.

    The log probabilities of each prompt's most probable next tokens are compared. The limits depend
    on the number format: half precision shows gross faults only.

    Args:
        model: from `load_model`.
        tasks: the tasks of the prompts.
        n_prompts, n_shots, seed, n_edits, template, leading_space, instruction: see
            `CheckSettings`.
        progress: show a progress bar.

    Returns:
        Facts about the model and every number; `passed` says whether all are as expected. If the
        model or an engine fails, the result has a failed row and no error is raised.

    Raises:
        InputError: where a task or count cannot work, a prompt is too long for the model, or the
            model is in training mode.

    Example:
        >>> found = icl_mech.check_model_support(model, n_prompts=1, n_edits=2, progress=False)
        >>> found.passed, found.facts.engine, found.failures
        (True, 'shared', [])
    """
    check_model(model)
    settings = CheckSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_edits=n_edits,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings), progress)


def measure(model: HookedModel, plan: CheckPlan, progress: bool = True) -> ModelSupport:
    """Run a plan, as `check_model_support` does after it has drawn the prompts."""
    s = plan.settings
    words = [pair.y for task in plan.tasks for pair in task.pairs]
    encoder = model.encoder(s.template, words, s.leading_space)
    prompts = in_context(encoder, plan.episodes)
    names = ", ".join(task.name for task in plan.tasks)
    facts = Facts.of(model, encoder, prompts, f"{s.n_prompts} of {names} with {s.n_shots} shots")
    try:
        asked = ask(model, prompts)
    except ModelError as error:
        return ModelSupport(facts, (broken("the model runs the prompts", "", error),))
    return ModelSupport(facts, tuple(_rows(model, asked, s, progress)))


def _rows(model: HookedModel, asked: Asked, s: CheckSettings, progress: bool) -> Iterator[Row]:
    """Every row of the check, as it is found."""
    edits = Edits.of(asked, s)
    try:
        pair = twins(model)
    except ModelError as error:
        yield broken("another engine runs the model", "", error)
        pair = None
    with progress_bar(len(asked.prompts) * edits.n_runs(pair), "edits", progress) as bar:
        if pair is not None:
            yield from compare(pair, asked, edits.contrasting, bar.update)
        yield from acts(model, asked, edits.adding, bar.update)
        yield from restores(model, asked, edits.restoring, bar.update)
        if pair is not None:
            yield from speeds(pair, asked, edits.timed, bar.update)


@dataclass(frozen=True)
class Edits:
    """All edits that are tried on the prompts.

    Attributes:
        contrasting, adding, restoring, timed: from the functions of the same names.
    """

    contrasting: Trials
    adding: Trials
    restoring: Trials
    timed: Sequence[list[Edit]]

    @staticmethod
    def of(asked: Asked, s: CheckSettings) -> "Edits":
        """The edits for these prompts."""
        return Edits(
            contrasting(asked, s.seed),
            adding(asked, s.seed),
            restoring(asked),
            timed(asked, s.n_edits, s.seed),
        )

    def n_runs(self, pair: Twins | None) -> int:
        """The number of runs of each prompt, those without an edit included."""
        n = sum(1 + len(e) for trials in (self.adding, self.restoring) for e in trials.values())
        if pair is not None:
            n += 2 * (1 + sum(map(len, self.contrasting.values())))
            n += len(pair.engines) * len(self.timed)
        return n
