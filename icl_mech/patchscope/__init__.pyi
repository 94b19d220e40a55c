from .plan import INVITATIONS as INVITATIONS
from .result import Patchscope as Patchscope
from .run import patchscope as patchscope
