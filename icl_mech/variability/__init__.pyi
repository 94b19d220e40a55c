from .compare import compare_variability as compare_variability
from .result import VectorVariability as VectorVariability
from .run import vector_variability as vector_variability
from .sampling import draw_sets as draw_sets
