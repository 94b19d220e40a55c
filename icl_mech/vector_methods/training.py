"""Vectors that are trained by gradient descent while the model stays as it is.

Only training pairs are asked. Dev prompts decide when to stop, and which of several layers is kept.
"""

from collections.abc import Callable, Sequence
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import NotFiniteError
from icl_mech.layers import check_layers
from icl_mech.model import Edit
from icl_mech.prompts import Episode, Prompt, generator, in_context, shuffled, zero_shot
from icl_mech.task_vectors import TaskVector
from icl_mech.vector_methods.forming import Forming
from icl_mech.vector_methods.reading import thetas

#: Steps between two looks at dev prompts, and looks without a lower loss before training stops.
LOOK, PATIENCE = 10, 2
#: Training prompts are drawn once, into so many batches at most.
MOST_BATCHES = 8
#: A gradient below this changes nothing: the loss falls by less than this at a step of size 1.
LEAST_GRADIENT = 1e-7
#: What the weights of I2CL start from.
I2CL_START = 0.1

#: The prompts of a batch of episodes, and the token ids of their answers.
Batch = tuple[list[Prompt], list[list[int]]]


def learned(f: Forming) -> TaskVector:
    """Theta, moved by gradient descent on the answers to zero-shot prompts of training pairs.

    arXiv 2509.24169. The loss is the cross-entropy of the whole answer and of what ends it in the
    template, so that a vector can also learn where to end. It starts from the mean theta at a
    layer; layers are trained each by itself, and the best on dev prompts is kept.
    """
    start = thetas(f).float().mean(dim=0).cpu()
    found = []
    layers = _train_layers(f, start)
    for layer in layers:
        size = start[layer].square().mean().sqrt()

        def edits(moved: Tensor, layer: int = layer, size: Tensor = size) -> list[Edit]:
            return [Edit(layer, start[layer] + size * moved, "resid_post", "final_arrow")]

        what = f"after block {layer}"
        moved = descend(f, torch.zeros_like(start[layer]), edits, _zero_shot, what)
        found.append(start[layer] + size * moved)
    return f.best([f.vector(torch.stack(found), layers=tuple(layers))])


def _train_layers(f: Forming, start: Float[Tensor, "layer d_model"]) -> list[int]:
    """The blocks after which a vector is learned, from 0."""
    if f.like is not None:
        assert f.like.layer is not None
        return [f.like.layer]
    if f.settings.train_layers is not None:
        return check_layers(f.settings.train_layers, f.model.n_layers)
    best = f.best([f.vector(start)]).layer
    assert best is not None
    return sorted({f.model.n_layers // 4, best})


def learnable_heads(f: Forming) -> TaskVector:
    """A weight for every head's mean output, trained; the sums are added after every block.

    LTV, Saglam et al. 2025 (arXiv 2502.05390): `v_l = sum_h w[l, h] mean_out[l, h]`, at the last
    token after every block at once. The loss is the cross-entropy of the answer's first token on
    few-shot prompts with shuffled labels. Each head goes through the output projection by itself
    (the authors' code cuts the projection of all heads into chunks, so that its weights belong to
    no head). Weights start from 0, where the authors draw them from a standard normal
    distribution and train for 2,000 steps.
    """
    f.say("mean outputs of heads")
    means, _ = f.model.heads.mean_outputs(f.material.clean)
    f.cost.ran(len(f.material.clean))
    return _weighted(f, means, 0.0, _mixed)


def implicit(f: Forming) -> TaskVector:
    """Weights for the mean attention and MLP outputs of every block, trained; the sums are added.

    I2CL, Li et al. 2024 (arXiv 2405.14660): the loss is the cross-entropy of the answer on
    zero-shot prompts. The paper also weighs the prompt's own outputs, and writes at every token
    inside the block; here both sums are added after the block, at the last token only.
    """
    f.say("reading")
    parts = [
        f.model.capture(f.material.clean, ["final_arrow"], site)[:, 0].float().mean(dim=0)
        for site in ("attn_out", "mlp_out")
    ]
    f.cost.ran(2 * len(f.material.clean))
    return _weighted(f, torch.stack(parts, dim=1), I2CL_START, _zero_shot)


def _weighted(
    f: Forming,
    parts: Float[Tensor, "layer part d_model"],
    start: float,
    batch: Callable[[Forming, Sequence[Episode], int], Batch],
) -> TaskVector:
    """Train a weight for every part, whose weighted sums are added after every block."""
    parts = parts.float().cpu()

    def edits(weights: Tensor) -> list[Edit]:
        return [
            Edit(layer, value, "resid_post", "final_arrow", "add")
            for layer, value in enumerate(weighted_sum(parts, weights))
        ]

    weights = descend(f, torch.full(parts.shape[:2], start), edits, batch, "all blocks")
    last = f.model.n_layers - 1
    return f.best(
        [
            f.vector(
                weighted_sum(parts, weights),
                "add",
                layer=last,
                through=True,
                weights=weights.tolist(),
            )
        ]
    )


def weighted_sum(
    parts: Float[Tensor, "layer part d_model"], weights: Float[Tensor, "layer part"]
) -> Float[Tensor, "layer d_model"]:
    """The parts of every layer times their weights.

    >>> weighted_sum(torch.ones(1, 2, 3), torch.tensor([[0.5, 1.0]]))
    tensor([[1.5000, 1.5000, 1.5000]])
    """
    return torch.einsum("lpd,lp->ld", parts, weights)


def descend(
    f: Forming,
    start: Tensor,
    edits: Callable[[Tensor], list[Edit]],
    batch: Callable[[Forming, Sequence[Episode], int], Batch],
    what: str,
) -> Tensor:
    """The parameters with the least loss on dev prompts, on the way of Adam from `start`.

    Training that stops for another reason than its length says so in `f.notes`: a loss that is no
    number (the last good parameters are kept), or a gradient that vanishes. The training prompts
    are drawn once, in up to `MOST_BATCHES` batches that come in turn.

    Args:
        f: the vector in the making.
        start: the parameters before the first step.
        edits: what they write.
        batch: prompts and answers of episodes.
        what: of the vector is trained, in words.
    """
    s = f.settings
    if s.n_steps == 0:
        return start
    parameters = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=s.learning_rate)
    train, dev = _batches(f, batch, what), batch(f, f.material.dev, 0)
    losses = [_loss(f, of, edits(start)) for of in train[: s.n_steps]]
    best, at, waited = start.clone(), 0, 0
    least = _dev_loss(f, dev, edits(best))
    for step in range(1, s.n_steps + 1):
        f.say(f"{what}, step {step}")
        try:
            gradient = _gradient(losses[(step - 1) % len(losses)], edits, parameters)
        except NotFiniteError:
            f.notes.append(_diverged(what, step, at))
            break
        if float(gradient.norm()) < LEAST_GRADIENT:
            f.notes.append(_vanished(what, step, at, float(gradient.norm())))
            break
        parameters.grad = gradient
        optimiser.step()
        if step % LOOK and step != s.n_steps:
            continue
        now = _dev_loss(f, dev, edits(parameters.detach()))
        if not isfinite(now):
            f.notes.append(_diverged(what, step, at))
            break
        waited = 0 if now < least else waited + 1
        if now < least:
            best, least, at = parameters.detach().clone(), now, step
        if waited == PATIENCE:
            break
    return best


#: The gradient of the mean loss of a batch with respect to every value that is written.
Loss = Callable[[list[Tensor]], list[Tensor]]


def _batches(
    f: Forming, batch: Callable[[Forming, Sequence[Episode], int], Batch], what: str
) -> list[Batch]:
    """Training prompts: as many batches as the training pairs fill, each pair once if they do."""
    rng = generator(f.settings.seed, f.material.task.name, "training", what)
    size = f.settings.batch_size
    n = min(MOST_BATCHES, -(-len(f.material.pairs) // size))
    episodes = f.material.draws(rng, n * size)
    return [batch(f, episodes[i * size : (i + 1) * size], i + 1) for i in range(n)]


def _loss(f: Forming, batch: Batch, edits: list[Edit]) -> Loss:
    """A batch, ready for any values of these edits: what they cannot change runs once, here."""
    prompts, answers = batch
    # The token at which each answer goes on is asked by itself, after those before it.
    asked = [
        _continued(prompt, answer[:k])
        for prompt, answer in zip(prompts, answers, strict=True)
        for k in range(len(answer))
    ]
    ready = f.model.answer_gradients(asked, [edits], [token for row in answers for token in row])
    f.cost.ran(len(asked))

    def at(values: list[Tensor]) -> list[Tensor]:
        found = ready.at(values)
        f.cost.forward += len(asked)
        f.cost.backward += len(asked)
        return [-gradient.sum(dim=0) / len(prompts) for gradient in found.gradients]

    return at


def _continued(prompt: Prompt, tokens: Sequence[int]) -> Prompt:
    """The prompt with the first tokens of an answer after it."""
    return Prompt(
        prompt.text, (*prompt.tokens, *tokens), (*prompt.roles, *["answer"] * len(tokens))
    )


def _gradient(loss: Loss, edits: Callable[[Tensor], list[Edit]], parameters: Tensor) -> Tensor:
    """The gradient of the loss with respect to the parameters that the edits are made of."""
    values = [edit.value for edit in edits(parameters)]
    gradients = loss([value.detach() for value in values])
    ours = [g.to(value) for g, value in zip(gradients, values, strict=True)]
    (gradient,) = torch.autograd.grad(values, [parameters], ours)
    return gradient


def _diverged(what: str, step: int, at: int) -> str:
    return (
        f"training diverged at step {step} ({what}: its loss is no finite number); kept is what "
        f"had the least loss on dev prompts, of step {at}"
    )


def _vanished(what: str, step: int, at: int, norm: float) -> str:
    said = f"the gradient vanishes {what} (its norm is {norm:.1g}"
    if step == 1:
        return f"{said}): nothing is learned there"
    return f"{said} at step {step}); kept is what had the least loss on dev prompts, of step {at}"


def _dev_loss(f: Forming, dev: Batch, edits: list[Edit]) -> float:
    """Mean of minus the log probability (nats) of the answers."""
    prompts, answers = dev
    f.cost.ran(len(prompts))
    if not all(bool(torch.isfinite(edit.value).all()) for edit in edits):
        return float("nan")
    found = f.model.sequence_logprob(prompts, [[ids] for ids in answers], [edits])
    return -float(found.mean())


def _zero_shot(f: Forming, episodes: Sequence[Episode], step: int) -> Batch:
    """Zero-shot prompts, and the whole answers with what ends them."""
    encoder = f.material.encoder
    prompts = zero_shot(encoder, episodes)
    texts = [e.query.y + encoder.template.stop for e in episodes]
    return prompts, _answers(f, prompts, texts)


def _mixed(f: Forming, episodes: Sequence[Episode], step: int) -> Batch:
    """Few-shot prompts with shuffled labels, and the first tokens of the answers."""
    rng = generator(f.material.seed, f.material.task.name, "mixed", str(step))
    mixed = shuffled(episodes, rng) if f.material.n_shots > 1 else tuple(episodes)
    prompts = in_context(f.material.encoder, mixed)
    ids = _answers(f, prompts, [e.query.y for e in episodes])
    return prompts, [row[:1] for row in ids]


def _answers(f: Forming, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[list[int]]:
    encoder = f.material.encoder
    return [
        list(encoder.answer_tokens(prompt, [text])[0])
        for prompt, text in zip(prompts, texts, strict=True)
    ]
