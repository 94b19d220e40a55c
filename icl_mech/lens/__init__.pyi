from .naming import NAMING as NAMING
from .result import LogitLens as LogitLens
from .run import logit_lens as logit_lens
from .targets import TARGETS as TARGETS
from .vectors import vector_lens as vector_lens
from .vectors_result import VectorLens as VectorLens
