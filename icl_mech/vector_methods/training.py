"""Vectors that are trained by gradient descent while the model's weights stay fixed.

Training uses training pairs only. Dev prompts decide when to stop, and which layer is kept.
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

#: Steps between two evaluations on dev prompts, and how many evaluations without a lower loss end
#: training.
LOOK, PATIENCE = 10, 2
#: Training prompts are drawn once, in at most this many batches.
MOST_BATCHES = 8
#: Training stops if the gradient's norm is below this: a step of size 1 would lower the loss by
#: less than this.
LEAST_GRADIENT = 1e-7
#: The initial value of every weight of I2CL.
I2CL_START = 0.1

#: The prompts of a batch of episodes, and the token ids of their answers.
Batch = tuple[list[Prompt], list[list[int]]]


def learned(f: Forming) -> TaskVector:
    """A vector trained by gradient descent on zero-shot prompts of training pairs, from theta.

    arXiv 2509.24169. The loss is the cross-entropy of the whole answer and of the template's stop
    text, so that the vector can also learn where the answer ends. Training starts from the mean
    theta of a layer. Each layer is trained by itself, and the best on dev prompts is kept.
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
    (the authors' code cuts the projection of all heads into chunks, so its weights do not
    correspond to heads). Weights start from 0; the authors draw them from a standard normal
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
    """Train a weight for every part; the weighted sum of a layer is added after its block."""
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
    """The weighted sum of the parts of every layer.

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
    """Train parameters with Adam, and return those with the lowest loss on dev prompts.

    Training prompts are drawn once, in up to `MOST_BATCHES` batches that are used in turn. Training
    ends early if the dev loss no longer falls, if a loss is not finite, or if the gradient
    vanishes; the latter two add a note to `f.notes`.

    Args:
        f: the vector that is formed.
        start: the parameters before the first step.
        edits: the edits of given parameters.
        batch: prompts and answers of episodes.
        what: describes what is trained, in messages.
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


#: Maps the values of the edits to the gradient of a batch's mean loss with respect to each value.
Loss = Callable[[list[Tensor]], list[Tensor]]


def _batches(
    f: Forming, batch: Callable[[Forming, Sequence[Episode], int], Batch], what: str
) -> list[Batch]:
    """Training prompts, in as many batches as the training pairs fill (at most `MOST_BATCHES`)."""
    rng = generator(f.settings.seed, f.material.task.name, "training", what)
    size = f.settings.batch_size
    n = min(MOST_BATCHES, -(-len(f.material.pairs) // size))
    episodes = f.material.draws(rng, n * size)
    return [batch(f, episodes[i * size : (i + 1) * size], i + 1) for i in range(n)]


def _loss(f: Forming, batch: Batch, edits: list[Edit]) -> Loss:
    """The loss of a batch as a function of edit values; what the edits cannot change runs once."""
    prompts, answers = batch
    # Each token of an answer gets a prompt of its own, which ends with the tokens before it.
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
    """The gradient of the loss with respect to the parameters."""
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
    """Mean negative log probability (nats) of the answers; NaN if an edit is not finite."""
    prompts, answers = dev
    f.cost.ran(len(prompts))
    if not all(bool(torch.isfinite(edit.value).all()) for edit in edits):
        return float("nan")
    found = f.model.sequence_logprob(prompts, [[ids] for ids in answers], [edits])
    return -float(found.mean())


def _zero_shot(f: Forming, episodes: Sequence[Episode], step: int) -> Batch:
    """Zero-shot prompts, and the token ids of whole answers with the template's stop text."""
    encoder = f.material.encoder
    prompts = zero_shot(encoder, episodes)
    texts = [e.query.y + encoder.template.stop for e in episodes]
    return prompts, _answers(f, prompts, texts)


def _mixed(f: Forming, episodes: Sequence[Episode], step: int) -> Batch:
    """Few-shot prompts with shuffled labels, and the first token id of each answer."""
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
