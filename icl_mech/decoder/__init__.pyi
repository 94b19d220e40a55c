from .result import EFFECTS as EFFECTS, Decoder as Decoder
from .run import find_decoder as find_decoder
