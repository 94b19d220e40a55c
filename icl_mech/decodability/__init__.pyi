from .accuracy import td_predicts_accuracy as td_predicts_accuracy
from .measure import knn_credit as knn_credit, knn_half_td as knn_half_td
from .result import TaskDecodability as TaskDecodability
from .run import task_decodability as task_decodability
