from .error_kinds import KINDS as KINDS
from .plan import REPAIRS as REPAIRS
from .result import TaskVectorFailures as TaskVectorFailures
from .run import task_vector_failures as task_vector_failures
