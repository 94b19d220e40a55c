from .files import list_adapters as list_adapters
from .plan import FinetuneSettings as FinetuneSettings, chosen_blocks as chosen_blocks
from .result import Finetuning as Finetuning
from .run import finetune as finetune
