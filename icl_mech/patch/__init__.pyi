from .contrasts import Contrast as Contrast
from .means import mean_patching as mean_patching
from .means_result import MeanPatching as MeanPatching
from .positions import patch_contrasts as patch_contrasts, patch_positions as patch_positions
from .positions_plan import CORRUPTIONS as CORRUPTIONS, DIRECTIONS as DIRECTIONS
from .positions_result import PositionScan as PositionScan
from .scan import layer_scan as layer_scan
from .scan_plan import ControlLayers as ControlLayers
from .scan_result import REFERENCES as REFERENCES, VECTORS as VECTORS, LayerScan as LayerScan
