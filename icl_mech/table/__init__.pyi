from .files import FORMATS as FORMATS, write_table as write_table
from .folder import DamagedFileWarning as DamagedFileWarning
from .result import ACCURACIES as ACCURACIES, CONTROLS as CONTROLS, TaskTable as TaskTable
from .run import task_table as task_table
