__version__: str
__all__: list[str]

from .answers import AnswerScores as AnswerScores, answer_scores as answer_scores
from .check import ModelSupport as ModelSupport, check_model_support as check_model_support
from .checkpoints import Checkpoints as Checkpoints, over_checkpoints as over_checkpoints
from .classification import LabelScores as LabelScores, label_scores as label_scores
from .conflict import ConflictingTasks as ConflictingTasks, conflicting_tasks as conflicting_tasks
from .cost import Cost as Cost, expected_cost as expected_cost
from .decodability import (
    TaskDecodability as TaskDecodability,
    task_decodability as task_decodability,
    td_predicts_accuracy as td_predicts_accuracy,
)
from .decoder import Decoder as Decoder, find_decoder as find_decoder
from .errors import (
    IclMechError as IclMechError,
    InputError as InputError,
    ModelError as ModelError,
)
from .failures import (
    TaskVectorFailures as TaskVectorFailures,
    task_vector_failures as task_vector_failures,
)
from .finetune import (
    Finetuning as Finetuning,
    finetune as finetune,
    list_adapters as list_adapters,
)
from .heads import (
    FunctionVectors as FunctionVectors,
    HeadAblation as HeadAblation,
    HeadAttribution as HeadAttribution,
    function_vectors as function_vectors,
    head_ablation as head_ablation,
    head_attribution as head_attribution,
)
from .knowledge import (
    KnowledgeConflict as KnowledgeConflict,
    knowledge_conflict as knowledge_conflict,
)
from .lens import (
    LogitLens as LogitLens,
    VectorLens as VectorLens,
    logit_lens as logit_lens,
    vector_lens as vector_lens,
)
from .localize import TaskMap as TaskMap, localize as localize
from .masking import ContextMasking as ContextMasking, context_masking as context_masking
from .model import (
    Edit as Edit,
    HookedModel as HookedModel,
    Knockout as Knockout,
    load_model as load_model,
)
from .one_prompt import (
    ComparedPrompts as ComparedPrompts,
    PromptAttention as PromptAttention,
    PromptLens as PromptLens,
    Steering as Steering,
    compare_prompts as compare_prompts,
    prompt_attention as prompt_attention,
    prompt_lens as prompt_lens,
    steer as steer,
)
from .patch import (
    Contrast as Contrast,
    LayerScan as LayerScan,
    MeanPatching as MeanPatching,
    PositionScan as PositionScan,
    layer_scan as layer_scan,
    mean_patching as mean_patching,
    patch_contrasts as patch_contrasts,
    patch_positions as patch_positions,
)
from .patchscope import Patchscope as Patchscope, patchscope as patchscope
from .planted import Plant as Plant, Planted as Planted, planted_model as planted_model
from .progressive import (
    ProgressiveGeneration as ProgressiveGeneration,
    progressive_generation as progressive_generation,
)
from .prompts import Prompt as Prompt
from .results import Result as Result, load_result as load_result
from .sweep import Sweep as Sweep, sweep as sweep
from .synthetic import (
    Emergence as Emergence,
    EmergenceOverSeeds as EmergenceOverSeeds,
    emergence_over_seeds as emergence_over_seeds,
    measure_emergence as measure_emergence,
)
from .table import TaskTable as TaskTable, task_table as task_table
from .task_vectors import TaskVector as TaskVector, task_vector as task_vector
from .tasks import (
    Family as Family,
    Pair as Pair,
    Task as Task,
    list_failures as list_failures,
    list_families as list_families,
    list_tasks as list_tasks,
    load_failure as load_failure,
    load_family as load_family,
    load_task as load_task,
    make_lookup_task as make_lookup_task,
)
from .transfer import VectorTransfer as VectorTransfer, vector_transfer as vector_transfer
from .variability import (
    VectorVariability as VectorVariability,
    vector_variability as vector_variability,
)
from .vector_methods import (
    VectorComparison as VectorComparison,
    compare_vectors as compare_vectors,
)
