from .result import (
    DECODING as DECODING,
    FORMATION as FORMATION,
    READOUTS as READOUTS,
    Located as Located,
    Rule as Rule,
    TaskMap as TaskMap,
)
from .run import localize as localize
