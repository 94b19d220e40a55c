"""Where does the model form the task vector, and where is it decoded?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.localize.curves import Located, Rule
    from icl_mech.localize.result import DECODING, FORMATION, READOUTS, TaskMap
    from icl_mech.localize.run import localize

# Loaded on first use: `python -m icl_mech.localize --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "curves": ["Located", "Rule"],
        "result": ["DECODING", "FORMATION", "READOUTS", "TaskMap"],
        "run": ["localize"],
    },
)
__all__ = ["DECODING", "FORMATION", "READOUTS", "Located", "Rule", "TaskMap", "localize"]
