from .files import FORMATS as FORMATS, write_table as write_table
from .result import ACCURACIES as ACCURACIES, CONTROLS as CONTROLS, TaskTable as TaskTable
from .run import read_table as read_table, task_table as task_table
