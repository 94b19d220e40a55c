from .take import task_vector as task_vector
from .vector import TaskVector as TaskVector
