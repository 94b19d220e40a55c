"""The heads that a question uses, most important first: given by the caller, or ranked by AIE."""

from dataclasses import dataclass

from icl_mech.heads.attribution import indirect_effects
from icl_mech.heads.attribution_result import largest
from icl_mech.heads.plan import AblationSettings, FunctionVectorSettings, Head, HeadsPlan
from icl_mech.heads.prompts import Prompts
from icl_mech.model import HookedModel
from icl_mech.progress import Tick
from icl_mech.vectors import check_heads


@dataclass(frozen=True)
class Ranking:
    """The heads that a question uses.

    Attributes:
        model: the model.
        given: the caller's heads, used for every task. If None, each task uses the heads with the
            largest AIE on its dev prompts.
    """

    model: HookedModel
    given: list[Head] | None

    @classmethod
    def of(
        cls,
        model: HookedModel,
        plan: HeadsPlan[AblationSettings] | HeadsPlan[FunctionVectorSettings],
    ) -> "Ranking":
        """The ranking that a plan asks for.

        Raises:
            InputError: if the model has no such head.
        """
        if plan.heads is None:
            return cls(model, None)
        return cls(model, check_heads(plan.heads, model.n_layers, model.n_heads))

    def __len__(self) -> int:
        """Number of heads that are ranked."""
        return self.model.n_layers * self.model.n_heads if self.given is None else len(self.given)

    def n_runs(self, n_dev: int) -> int:
        """Number of (prompt, head) runs that the ranking costs, per task."""
        return n_dev * len(self) if self.given is None else 0

    def top(self, dev: Prompts, k: int, tick: Tick) -> list[Head]:
        """The first `k` heads for a task; mean outputs and effects use the same dev queries."""
        if self.given is not None:
            return self.given[:k]
        effects = indirect_effects(self.model, dev.clean, dev.shuffled, dev.answers, tick)
        return largest(effects.mean(axis=0), k)

    @property
    def recorded(self) -> str | list[list[int]]:
        """The entry of a result's provenance."""
        if self.given is None:
            return "ranked by AIE on dev prompts"
        return [list(head) for head in self.given]
