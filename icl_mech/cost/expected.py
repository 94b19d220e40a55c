"""Predicts the cost of a question on a model before any weights are loaded."""

from typing import Any, Literal, get_args

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import Limits, PlainCount, SharedCount
from icl_mech.cost.questions import NAMES, ONCE, QUESTIONS
from icl_mech.cost.sizes import Sizes
from icl_mech.cost.work import Cost
from icl_mech.errors import InputError, choose
from icl_mech.model.engine import BUDGET, BUDGET_ACCELERATOR
from icl_mech.model.plain import read_config
from icl_mech.model.sources import find

Engine = Literal["shared", "plain"]
#: Bytes of a number.
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_ENGINES = {"shared": SharedCount, "plain": PlainCount}


def expected_cost(
    question: str,
    config: Any,
    n_tasks: int = 1,
    n_prompts: int = 50,
    n_shots: int = 5,
    *,
    n_dummies: int = 2,
    per_demonstration: int = 5,
    per_query: int = 2,
    control_layers: str = "all",
    controls: bool = True,
    heads: bool = True,
    masking: bool = True,
    engine: Engine = "shared",
    dtype: str = "float32",
    device: str = "cpu",
    batch_tokens: int | None = None,
) -> Cost:
    """Predict the operations, bytes and memory of a question from a model's configuration alone.

    Matrix products are counted, batch by batch as the engines run them. Not counted are norms,
    softmax, activations, sums over the vocabulary, the checks before a model's first run, and a
    scan's few prompts with a second sink token. On a CPU, a run takes about twice as long as its
    products at the machine's best rate (`make bench-floor`).

    Args:
        question: a command's name: `"scan"`, `"positions"` (both directions, labels shuffled),
            `"components"`, `"mean-patching"`, `"heads"` (the exact AIE alone, with as many clean
            prompts as others), `"ablate"`, `"function-vectors"`, `"lens"` (at the last token),
            `"vector-lens"`, `"patchscope"`, `"decodability"`, `"masking"` (all masks), `"localize"`
            (heads and masking, too), `"decoder"` (gradients, too), `"checkpoints"` (one
            checkpoint, without heads), `"table"`, `"answers"`, `"conflict"` (`n_tasks` pairs),
            `"variability"`, `"vectors"` (every method), `"knowledge"`, `"progressive"`,
            `"transfer"` (with an instruction of eight tokens), `"classify"` (three labels),
            `"failures"` or `"finetune"`. Settings that are not arguments here have the question's
            defaults. It is assumed that generated texts reach the limit of new tokens, that
            training runs to its last step, and that θ works after a third of the blocks, best in
            the middle.
        config: a model's name or folder, as in `load_model`; its configuration in Transformers, or
            the entries of its `config.json`; or `Sizes`.
        n_tasks: the number of tasks.
        n_prompts, n_shots, n_dummies, control_layers: as in the questions.
        controls: whether decodability runs its controls.
        heads, masking: whether `localize` includes heads and masking.
        per_demonstration: tokens of a demonstration: x, arrow, y and line break.
        per_query: tokens of the query and its arrow.
        engine: `"shared"` or `"plain"`.
        dtype: of weights and activations.
        device: `"cpu"`, or another kind of device, which runs larger batches.
        batch_tokens: as in `load_model`.

    Raises:
        InputError: where there is no such question, engine or dtype, a count is not positive, or
            the model is not a dense transformer.

    Example:
        >>> llama = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
        ...          "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
        ...          "tie_word_embeddings": False}
        >>> cost = icl_mech.expected_cost("scan", llama, dtype="bfloat16", device="cuda")
        >>> f"{cost.weights:.2g} bytes, {cost.seconds(3e14, 3e12):.1f} s"
        '1.6e+10 bytes, 0.5 s'
    """
    choose(question, NAMES, "question")
    choose(engine, get_args(Engine), "engine")
    choose(dtype, _BYTES, "dtype")
    choose(control_layers, ("all", "chosen"), "control_layers")
    counts = {
        "n_tasks": n_tasks,
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_dummies": n_dummies,
        "per_demonstration": per_demonstration,
        "per_query": per_query,
    }
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; expected at least 1")
    asked = Asked(
        n_tasks=n_tasks,
        n_prompts=n_prompts,
        n_shots=n_shots,
        n_dummies=n_dummies,
        per_demonstration=per_demonstration,
        per_query=per_query,
        everywhere=control_layers == "all",
        controls=controls,
        heads=heads,
        masking=masking,
    )
    kind = device.partition(":")[0]
    limits = Limits(
        _BYTES[dtype],
        batch_tokens or BUDGET.get(kind, BUDGET_ACCELERATOR),
        kind,
    )
    counted = _ENGINES[engine](_sizes(config), limits)
    if question in QUESTIONS:
        QUESTIONS[question](counted, asked)
        counted.repeat(n_tasks)
    if question in ONCE:
        ONCE[question](counted, asked)
    return counted.cost


def _sizes(config: Any) -> Sizes:
    if isinstance(config, Sizes):
        return config
    return Sizes.of(read_config(find(config)) if isinstance(config, str) else config)
