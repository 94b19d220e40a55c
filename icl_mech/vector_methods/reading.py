"""Vectors that are read from activations, without training."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.heads import indirect_effects
from icl_mech.heads.attribution_result import largest
from icl_mech.heads.vectors import head_sets
from icl_mech.prompts import Prompt, generator, in_context, shuffled
from icl_mech.task_vectors import TaskVector
from icl_mech.vector_methods.forming import Forming
from icl_mech.vectors import dummy_residuals, function_vector as summed_heads, theta

#: How many heads a function vector sums, and factors on vectors that are added: the best on dev.
N_HEADS, SCALES = (2, 5, 10), (1.0, 2.0, 4.0)
#: How much of the change from shot to shot is kept (a state vector's momentum).
MOMENTUM = 0.9


def theta_mean(f: Forming) -> TaskVector:
    """Theta: the residual stream at the last token after a dummy query, mean over sets.

    Hendel et al. 2023 (arXiv 2310.15916), section 3.2; the vector of each set is in `sets`.
    """
    sets = thetas(f)
    return f.best([f.vector(sets.mean(dim=0), sets=sets)])


def thetas(f: Forming) -> Float[Tensor, "set layer d_model"]:
    """Theta of every demonstration set."""
    f.say("reading")
    return theta(dummy_residuals(f.model, f.material.encoder, f.material.sets, f.cost.ran))


def layer_mean(f: Forming) -> TaskVector:
    """The mean residual stream at the last token of few-shot prompts, added once.

    The baseline of Todd et al. 2023 (arXiv 2310.15213), section 2.3.
    """
    sets = f.model.capture(f.material.clean, ["final_arrow"])[:, 0]
    f.cost.ran(len(f.material.clean))
    return f.best([f.vector(sets.float().mean(dim=0), "add", sets=sets)])


def instruction(f: Forming) -> TaskVector:
    """Theta of the instruction alone: training queries after the line that names the task."""
    encoder, line = f.material.encoder, f.material.instruction
    prompts = [encoder.encode((), e.query.x, line) for e in f.material.sets]
    sets = f.model.capture(prompts, ["final_arrow"])[:, 0]
    f.cost.ran(len(prompts))
    return f.best([f.vector(sets.float().mean(dim=0), sets=sets)])


def function_vector(f: Forming) -> TaskVector:
    """The summed mean outputs of the heads with the largest AIE, added.

    Todd et al. 2023 (arXiv 2310.15213), section 2.3. Heads are ranked on the training sets; how
    many, whether those of the last third of the blocks may be among them, and the factor are
    chosen on dev prompts, as in `function_vectors`.
    """
    model, clean = f.model, f.material.clean
    f.say("mean outputs of heads")
    means, _ = model.heads.mean_outputs(clean)
    f.cost.ran(len(clean))
    if f.like is not None:
        heads = [(layer, head) for layer, head in f.chosen["heads"]]
        return f.best([_of_heads(f, means, heads, f.like.scale)])
    f.say("effects of heads")
    rng = generator(f.material.seed, f.material.task.name, "shuffled sets")
    if f.material.n_shots < 2:
        raise InputError("n_shots is 1; expected at least 2 (labels are shuffled to rank heads)")
    mixed = in_context(f.material.encoder, shuffled(f.material.sets, rng))
    answers = [
        f.material.encoder.answer_tokens(prompt, [e.query.y])[0][0]
        for prompt, e in zip(mixed, f.material.sets, strict=True)
    ]
    effects = indirect_effects(model, clean, mixed, answers, f.cost.ran).mean(axis=0)
    sets = head_sets(model, largest(effects, effects.size), N_HEADS)
    return f.best(
        [_of_heads(f, means, heads, scale) for heads in sets for scale in SCALES], coarse=True
    )


def _of_heads(
    f: Forming,
    means: Float[Tensor, "layer head d_model"],
    heads: Sequence[tuple[int, int]],
    scale: float,
) -> TaskVector:
    values = summed_heads(means, heads).expand(f.model.n_layers, -1)
    return f.vector(values.contiguous(), "add", scale=scale, heads=[list(head) for head in heads])


def state_vector(f: Forming) -> TaskVector:
    """Attention outputs at the arrows after one demonstration and more: their mean.

    Li et al. 2024 (arXiv 2404.11225), aggregated by an average. They replace the attention outputs
    at the last token of the first blocks; how many blocks is chosen on dev prompts.
    """
    return _state(f, _states(f).mean(dim=1))


def state_vector_momentum(f: Forming) -> TaskVector:
    """The same, the last state moved on by the changes from shot to shot, with momentum.

    Li et al. 2024 (arXiv 2404.11225): the change from one state to the next is taken for a
    gradient. The moving average of changes (`MOMENTUM` of the old) is added to the last state.
    """
    states = _states(f)
    moved = torch.zeros_like(states[:, 0])
    for change in (states[:, 1:] - states[:, :-1]).unbind(dim=1):
        moved = MOMENTUM * moved + (1 - MOMENTUM) * change
    return _state(f, states[:, -1] + moved)


def _states(f: Forming) -> Float[Tensor, "set shot layer d_model"]:
    """Attention outputs at every arrow that comes after a demonstration, the final one included."""
    f.say("reading")
    episodes = f.material.sets
    prompts: list[Prompt] = [
        f.material.encoder.encode(e.demonstrations, e.dummies[0].x, e.instruction) for e in episodes
    ]
    roles = [*(f"demo_{i}_arrow" for i in range(1, f.material.n_shots)), "final_arrow"]
    f.cost.ran(len(prompts))
    return f.model.capture(prompts, roles, "attn_out").float()


def _state(f: Forming, sets: Float[Tensor, "set layer d_model"]) -> TaskVector:
    return f.best([f.vector(sets.mean(dim=0), site="attn_out", through=True, sets=sets)])


def in_context_vector(f: Forming) -> TaskVector:
    """The first principal direction of h(answer) - h(input), in all blocks at once, added.

    Liu et al. 2023 (arXiv 2311.06668): h is the residual stream at the last token of the text
    alone, the blocks' streams one after another. Here the direction (of the differences as they
    are, not centred, and with the sign of their mean) has the length of their mean times a factor
    that is chosen on dev prompts, and it is added at the last token only; the paper adds it at
    every token.
    """
    encoder = f.material.encoder
    texts = [
        (encoder.template.word(pair.x), encoder.template.word(pair.y)) for pair in f.material.pairs
    ]
    f.say("reading")
    streams = [
        f.model.capture([encoder.encode_text(text) for text in of], [-1])[:, 0].float()
        for of in zip(*texts, strict=True)
    ]
    f.cost.ran(2 * len(texts))
    differences = rearrange(streams[1] - streams[0], "pair layer d -> pair (layer d)")
    direction = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    mean = differences.mean(dim=0)
    values = (direction * torch.sign(direction @ mean) * mean.norm()).view(f.model.n_layers, -1)
    last = f.model.n_layers - 1
    scales = SCALES if f.like is None else (f.like.scale,)
    return f.best(
        [f.vector(values, "add", layer=last, through=True, scale=scale) for scale in scales]
    )
