from .result import EFFECTS as EFFECTS, Decoder as Decoder
from .run import NothingToDecodeError as NothingToDecodeError, find_decoder as find_decoder
