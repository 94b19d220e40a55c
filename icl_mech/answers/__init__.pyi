from .result import CONDITIONS as CONDITIONS, AnswerScores as AnswerScores
from .run import answer_scores as answer_scores
from .text_scores import SCORES as SCORES
