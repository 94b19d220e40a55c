from .ablation import head_ablation as head_ablation
from .ablation_result import HeadAblation as HeadAblation
from .attribution import head_attribution as head_attribution, indirect_effects as indirect_effects
from .attribution_result import HeadAttribution as HeadAttribution
from .plan import METHODS as METHODS
from .vectors import function_vectors as function_vectors
from .vectors_result import FunctionVectors as FunctionVectors
