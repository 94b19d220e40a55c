from .result import ProgressiveGeneration as ProgressiveGeneration
from .run import progressive_generation as progressive_generation
