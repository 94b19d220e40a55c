from .curves import Located as Located, Rule as Rule
from .result import (
    DECODING as DECODING,
    FORMATION as FORMATION,
    READOUTS as READOUTS,
    TaskMap as TaskMap,
)
from .run import localize as localize
