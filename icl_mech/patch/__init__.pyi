from .contrasts import CORRUPTIONS as CORRUPTIONS, Contrast as Contrast
from .means import mean_patching as mean_patching
from .means_result import MeanPatching as MeanPatching
from .positions import patch_contrasts as patch_contrasts, patch_positions as patch_positions
from .positions_result import DIRECTIONS as DIRECTIONS, PositionScan as PositionScan
from .scan import ControlLayers as ControlLayers, layer_scan as layer_scan
from .scan_result import REFERENCES as REFERENCES, VECTORS as VECTORS, LayerScan as LayerScan
from .scores import SCORES as SCORES, Scored as Scored, score as score
