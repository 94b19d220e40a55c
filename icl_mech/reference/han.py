"""Han et al. 2024 (arXiv 2412.12276): decodability against accuracy, and after finetuning."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from icl_mech.errors import choose

#: The rows of their table 1: the model as it is, with LoRA on its first or last 10 of 32 blocks,
#: and with prompts that name the task.
ARMS = ("pretrained", "first", "last", "prompt")


@dataclass(frozen=True)
class PublishedArm:
    """A row of table 1, on 4-shot prompts.

    Attributes:
        td, accuracy: each the mean over the six tasks and the standard deviation (0 to 1).
    """

    td: tuple[float, float]
    accuracy: tuple[float, float]


@dataclass(frozen=True)
class PublishedHan:
    """What the paper prints about language models.

    Attributes:
        source: where the numbers come from.
        n_rows: the points of a line: 6 tasks x 3 shot counts.
        n_shots: these shot counts.
        r_squared: R² of a straight line from TD to accuracy, by model and family. The paper gives
            no intervals, and the layer of TD is chosen on the points it is reported on.
        table_1: by family and arm (`ARMS`), Llama-3.1-8B. TD is measured upstream of the last
            blocks, so that tuning these cannot change it.
    """

    source: str
    n_rows: int
    n_shots: tuple[int, ...]
    r_squared: Mapping[str, Mapping[str, float]]
    table_1: Mapping[str, Mapping[str, PublishedArm]]

    def fit(self, model: str, family: str) -> float:
        """R² of one model on one family (`"pos"` or `"bitwise"`).

        Raises:
            InputError: where the paper has no such model or family.
        """
        of_model = self.r_squared[choose(model, self.r_squared, "published model")]
        return of_model[choose(family, of_model, "published family")]

    def arm(self, family: str, arm: str) -> PublishedArm:
        """A row of table 1.

        Raises:
            InputError: where the paper has no such family or arm.
        """
        of_family = self.table_1[choose(family, self.table_1, "published family")]
        return of_family[choose(arm, of_family, "published arm")]


@cache
def han2024() -> PublishedHan:
    """Han et al. 2024. TD and R² have two decimals (Mamba's R² three)."""
    raw = json.loads(
        files("icl_mech.reference").joinpath("han2024.json").read_text(encoding="utf-8")
    )
    table = {
        family: {
            arm: PublishedArm(tuple(row["td"]), tuple(row["accuracy"])) for arm, row in arms.items()
        }
        for family, arms in raw["table_1"].items()
    }
    return PublishedHan(
        raw["source"], raw["n_rows"], tuple(raw["n_shots"]), raw["r_squared"], table
    )
