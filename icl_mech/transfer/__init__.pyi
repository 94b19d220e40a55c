from .plan import FORMATS as FORMATS
from .result import VectorTransfer as VectorTransfer
from .run import vector_transfer as vector_transfer
