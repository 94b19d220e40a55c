from .result import LabelScores as LabelScores
from .run import label_scores as label_scores
