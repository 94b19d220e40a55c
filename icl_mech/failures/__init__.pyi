from .error_kinds import KINDS as KINDS
from .repair import REPAIRS as REPAIRS
from .result import TaskVectorFailures as TaskVectorFailures
from .run import task_vector_failures as task_vector_failures
