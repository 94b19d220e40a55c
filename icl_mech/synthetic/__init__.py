"""Watch task encoding and decoding form in a transformer small enough to train."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.synthetic.checkpoints import Checkpoint, list_checkpoints, load_checkpoint
    from icl_mech.synthetic.data import (
        VARIANTS,
        Batch,
        Mixture,
        draw_balanced,
        draw_batch,
        make_mixture,
        variant,
    )
    from icl_mech.synthetic.emergence import Emergence
    from icl_mech.synthetic.measure import measure_emergence
    from icl_mech.synthetic.model import ModelConfig, RegressionTransformer
    from icl_mech.synthetic.reference import REFERENCES, basis_posterior, predict
    from icl_mech.synthetic.seeds import EmergenceOverSeeds, emergence_over_seeds
    from icl_mech.synthetic.settings import PRESETS, Settings, preset
    from icl_mech.synthetic.timing import onset, onsets
    from icl_mech.synthetic.training import Training, train

# Loaded on first use: `python -m icl_mech.synthetic --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["Checkpoint", "list_checkpoints", "load_checkpoint"],
        "data": [
            "VARIANTS",
            "Batch",
            "Mixture",
            "draw_balanced",
            "draw_batch",
            "make_mixture",
            "variant",
        ],
        "emergence": ["Emergence"],
        "measure": ["measure_emergence"],
        "model": ["ModelConfig", "RegressionTransformer"],
        "reference": ["REFERENCES", "basis_posterior", "predict"],
        "seeds": ["EmergenceOverSeeds", "emergence_over_seeds"],
        "settings": ["PRESETS", "Settings", "preset"],
        "timing": ["onset", "onsets"],
        "training": ["Training", "train"],
    },
)
__all__ = [
    "PRESETS",
    "REFERENCES",
    "VARIANTS",
    "Batch",
    "Checkpoint",
    "Emergence",
    "EmergenceOverSeeds",
    "Mixture",
    "ModelConfig",
    "RegressionTransformer",
    "Settings",
    "Training",
    "basis_posterior",
    "draw_balanced",
    "draw_batch",
    "emergence_over_seeds",
    "list_checkpoints",
    "load_checkpoint",
    "make_mixture",
    "measure_emergence",
    "onset",
    "onsets",
    "predict",
    "preset",
    "train",
    "variant",
]
