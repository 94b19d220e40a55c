"""The work of finetuning a model."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine

#: In a run: updates, prompts per update, checkpoints, and prompts that are evaluated together.
_STEPS, _BATCH, _CHECKPOINTS, _TOGETHER = 200, 8, 8, 16
#: Rank of the adapters.
_RANK = 16


def finetune(engine: CountedEngine, a: Asked) -> None:
    """Count `finetune` on all tasks: LoRA in the first third of the blocks."""
    length = a.few_shot + a.label - 1
    adapted = -(-engine.sizes.n_layers // 3)
    engine.train(_STEPS, max(_BATCH, a.n_tasks), length, a.label, adapted, _RANK)
    for start in range(0, a.n_prompts, _TOGETHER):
        n = min(_TOGETHER, a.n_prompts - start)
        times = _CHECKPOINTS * a.n_tasks
        engine.blocks("prompts", times, n, length, length, engine.sizes.n_layers)
        engine.logits(times, n * a.label)
