from .checkpoints import (
    Checkpoint as Checkpoint,
    list_checkpoints as list_checkpoints,
    load_checkpoint as load_checkpoint,
)
from .data import (
    VARIANTS as VARIANTS,
    Batch as Batch,
    Mixture as Mixture,
    draw_balanced as draw_balanced,
    draw_batch as draw_batch,
    make_mixture as make_mixture,
    variant as variant,
)
from .emergence import Emergence as Emergence
from .functions import FUNCTIONS as FUNCTIONS, FunctionMixture as FunctionMixture
from .measure import measure_emergence as measure_emergence
from .model import ModelConfig as ModelConfig, RegressionTransformer as RegressionTransformer
from .reference import (
    REFERENCES as REFERENCES,
    basis_posterior as basis_posterior,
    predict as predict,
)
from .seeds import (
    EmergenceOverSeeds as EmergenceOverSeeds,
    emergence_over_seeds as emergence_over_seeds,
)
from .settings import PRESETS as PRESETS, Settings as Settings, preset as preset
from .timing import onset as onset, onsets as onsets
from .training import Training as Training, train as train
