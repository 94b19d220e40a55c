from .facts import Facts as Facts
from .plan import CheckSettings as CheckSettings
from .result import ModelSupport as ModelSupport, Row as Row
from .run import check_model_support as check_model_support
