from .folder import (
    CellFolder as CellFolder,
    DamagedFileWarning as DamagedFileWarning,
    OtherVersionWarning as OtherVersionWarning,
)
from .grid import Grid as Grid, plan_sweep as plan_sweep, read_specification as read_specification
from .measures import MEASURES as MEASURES
from .result import Sweep as Sweep
from .run import sweep as sweep
