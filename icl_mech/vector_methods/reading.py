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

#: Candidate head counts of a function vector, and candidate factors of added vectors; the best on
#: dev prompts are kept.
N_HEADS, SCALES = (2, 5, 10), (1.0, 2.0, 4.0)
#: Weight of the old value in a state vector's moving average of changes from shot to shot.
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
    """Mean residual stream at the last token of training queries after the instruction alone."""
    encoder, line = f.material.encoder, f.material.instruction
    prompts = [encoder.encode((), e.query.x, line) for e in f.material.sets]
    sets = f.model.capture(prompts, ["final_arrow"])[:, 0]
    f.cost.ran(len(prompts))
    return f.best([f.vector(sets.float().mean(dim=0), sets=sets)])


def function_vector(f: Forming) -> TaskVector:
    """The summed mean outputs of the heads with the largest AIE, added.

    Todd et al. 2023 (arXiv 2310.15213), section 2.3. Heads are ranked on the training sets. The
    number of heads, whether heads of the last third of the blocks may be among them, and the
    factor are chosen on dev prompts, as in `function_vectors`.
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
    """The mean of the attention outputs at every arrow that follows a demonstration.

    Li et al. 2024 (arXiv 2404.11225), aggregated by an average. It replaces the attention outputs
    at the last token in the first blocks; the number of blocks is chosen on dev prompts.
    """
    return _state(f, _states(f).mean(dim=1))


def state_vector_momentum(f: Forming) -> TaskVector:
    """The last state plus a moving average of the changes from shot to shot.

    Li et al. 2024 (arXiv 2404.11225): the change from one state to the next is treated as a
    gradient, and `MOMENTUM` is the weight of the old average.
    """
    states = _states(f)
    moved = torch.zeros_like(states[:, 0])
    for change in (states[:, 1:] - states[:, :-1]).unbind(dim=1):
        moved = MOMENTUM * moved + (1 - MOMENTUM) * change
    return _state(f, states[:, -1] + moved)


def _states(f: Forming) -> Float[Tensor, "set shot layer d_model"]:
    """Attention outputs at every arrow that follows a demonstration, including the final one."""
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
    alone, concatenated over blocks. The differences are not centred, and the direction points to
    the side of their mean. Its length is that of the mean difference times a factor chosen on dev
    prompts. It is added at the last token only; the paper adds it at every token.
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
