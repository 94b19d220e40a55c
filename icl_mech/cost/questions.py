"""The functions that count the engine calls of every question, by the question's command.

There are none for `train`, which trains models of its own, for `check`, which runs a few fixed
prompts, and for `sweep`, which consists of the others.
"""

from collections.abc import Callable

from icl_mech.cost.asked import Asked
from icl_mech.cost.decoder import decoder
from icl_mech.cost.engines import CountedEngine
from icl_mech.cost.formed import classify, knowledge, progressive
from icl_mech.cost.heads import ablation, attribution, function_vectors, induction
from icl_mech.cost.masking import masking
from icl_mech.cost.methods import vectors
from icl_mech.cost.patching import components, means, positions, scan, table
from icl_mech.cost.reading import (
    answers,
    checkpoint,
    conflict,
    decodability,
    failures,
    lens,
    localize,
    patchscope,
    transfer,
    variability,
    vector_lens,
)
from icl_mech.cost.training import finetune

Question = Callable[[CountedEngine, Asked], None]
#: Functions that count one task.
QUESTIONS: dict[str, Question] = {
    "scan": scan,
    "positions": positions,
    "components": components,
    "mean-patching": means,
    "heads": attribution,
    "ablate": ablation,
    "function-vectors": function_vectors,
    "lens": lens,
    "vector-lens": vector_lens,
    "patchscope": patchscope,
    "masking": masking,
    "localize": localize,
    "decoder": decoder,
    "checkpoints": checkpoint,
    "table": table,
    "answers": answers,
    "conflict": conflict,
    "variability": variability,
    "vectors": vectors,
    "knowledge": knowledge,
    "progressive": progressive,
    "transfer": transfer,
    "classify": classify,
    "failures": failures,
}
#: Functions that count work for all tasks together, called once.
ONCE: dict[str, Question] = {"heads": induction, "decodability": decodability, "finetune": finetune}
#: All questions whose cost can be predicted.
NAMES = tuple(dict.fromkeys([*QUESTIONS, *ONCE]))
