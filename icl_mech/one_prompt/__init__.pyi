from .attention import PromptAttention as PromptAttention, prompt_attention as prompt_attention
from .compare import ComparedPrompts as ComparedPrompts, compare_prompts as compare_prompts
from .lens import PromptLens as PromptLens, prompt_lens as prompt_lens
from .steering import Steering as Steering, steer as steer
