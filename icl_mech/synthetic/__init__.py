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
    from icl_mech.synthetic.settings import PRESETS, Settings, preset
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
        "settings": ["PRESETS", "Settings", "preset"],
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
    "Mixture",
    "ModelConfig",
    "RegressionTransformer",
    "Settings",
    "Training",
    "basis_posterior",
    "draw_balanced",
    "draw_batch",
    "list_checkpoints",
    "load_checkpoint",
    "make_mixture",
    "measure_emergence",
    "predict",
    "preset",
    "train",
    "variant",
]
