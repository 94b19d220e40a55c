from .accuracy import td_predicts_accuracy as td_predicts_accuracy
from .decode import task_decodability as task_decodability
from .measure import knn_credit as knn_credit
from .result import TaskDecodability as TaskDecodability
