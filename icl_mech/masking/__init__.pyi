from .plan import MASKS as MASKS
from .result import ContextMasking as ContextMasking
from .run import context_masking as context_masking
