from .methods import METHODS as METHODS, form_vector as form_vector
from .result import CONTROLS as CONTROLS, VectorComparison as VectorComparison
from .run import compare_vectors as compare_vectors, join_comparisons as join_comparisons
