from .plan import step_of as step_of
from .result import Checkpoints as Checkpoints
from .run import over_checkpoints as over_checkpoints
