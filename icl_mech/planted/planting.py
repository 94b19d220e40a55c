"""Sets the weights of a GPT-2 by hand.

Every feature (a word, a position, a task) is a direction of the residual stream. All directions are
orthogonal to one another, and to (1, 1, ..., 1), the direction that LayerNorm removes. LayerNorm
does nothing else here, because its epsilon is large and its weights are the root of epsilon. So the
computation of heads and MLPs can be described in features:

- *block 0*: at every label, a head copies the word two tokens before it (`{x}->{y}`). The MLP has a
  neuron for every input and task, which is active if input and label fit the task;
- *block `formed`*: the writers attend from a final arrow to all labels and write the mean of the
  tasks that fit;
- *block `decoded`*: a head copies the last input, wherever it stands; the MLP has a neuron for
  every input and task, and writes the answer's direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from icl_mech.model import HookedModel, load_model
from icl_mech.planted.plant import N_HEADS, PARTIAL, Head, Plant, Truth
from icl_mech.tasks import Family

N_POSITIONS, BOS, UNKNOWN, ARROW = 128, "<s>", "<unk>", "->"
#: The model's answer if no task is written at the final token.
PRIOR = "?"
_SYMBOLS = (BOS, UNKNOWN, PRIOR, ARROW, "\n", " ", "Q:", "A:")
#: Angles by which the features of positions turn from one token to the next. They are chosen so
#: that no two distances below `N_POSITIONS` look alike.
_ANGLES = torch.pi * torch.tensor([2, 3, 5, 7, 11, 13, 17, 19], dtype=torch.float64).sqrt().frac()
#: LayerNorm divides by the root of the variance plus this.
_EPSILON = 1e8
#: How far the attention score of the wanted token lies above all others, and above that of the
#: first token, to which heads attend if there is no wanted token.
_SHARP = 40.0
#: Logit of the answer if the task is written in full, and logit of `PRIOR` in any case.
_ANSWER, _PRIOR = 12.0, 4.0
#: Sizes of the features by which the last input is found: large, so that noise matters little.
_INPUT, _LATE = 3.0, 8.0


@dataclass(frozen=True)
class Planted:
    """A planted model, its tasks, and what read-outs should find in it.

    Attributes:
        directions: for every kind of feature, orthonormal directions of the residual stream,
            `[feature, d_model]`; the writers write `directions["task"]`.
    """

    model: HookedModel
    family: Family
    truth: Truth
    directions: dict[str, Tensor]


def planted_model(plant: Plant | None = None) -> Planted:
    """Make a small GPT-2 in which it is known where the task vector is formed and decoded.

    Args:
        plant: the settings; by default those of `Plant()`.

    Returns:
        A model of some hundred thousand weights with a tokenizer of whole words. It answers prompts
        of the template `{x}->{y}`.

    Example:
        >>> planted = icl_mech.planted_model(icl_mech.Plant(formed=2, decoded=4, n_layers=6))
        >>> scan = icl_mech.layer_scan(
        ...     planted.model, planted.family.tasks[0], n_prompts=6, n_shots=3, progress=False
        ... )
        >>> [round(e.value) for e in scan.curve("planted/a")]
        [0, 0, 1, 1, 0, 0]
    """
    plant = plant or Plant()
    planting = _Planting(plant)
    model = load_model(planting.planted(), tokenizer=tokenizer_of(plant))
    return Planted(model, plant.family(), plant.truth(), planting.of)


def vocabulary(plant: Plant) -> list[str]:
    """The tokens, in the order of their ids: symbols, inputs, answers."""
    words = [f"{kind}{i}" for kind in ("in", "out") for i in range(plant.n_inputs)]
    return [*_SYMBOLS, *words]


def tokenizer_of(plant: Plant) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for every word of the plant, which prepends BOS by itself."""
    ids = {word: i for i, word in enumerate(vocabulary(plant))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"->|\n| |[QA]:|\?|\w+"), behavior="isolated"
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{BOS} $A", special_tokens=[(BOS, ids[BOS])]
    )
    specials = {"bos_token": BOS, "eos_token": BOS, "pad_token": BOS, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, name_or_path="planted", add_bos_token=True, **specials
    )


class _Planting:
    """A GPT-2 with zero weights, the directions of its features, and methods that set weights."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        n, k = plant.n_inputs, plant.n_tasks
        sizes = {
            "input": n,  # which input a token is
            "label": n,  # which answer a token is
            "position": 2 * len(_ANGLES),
            "first": 1,  # whether a token is the first one,
            "arrow": 1,  # an arrow,
            "is_label": 1,  # any answer
            "is_input": 1,  # any input
            "late": 1,  # how late a token stands
            "shown": n,  # at a label: its demonstration's input
            "fits": k,  # at a label: the tasks that its demonstration fits
            "task": k,  # at an arrow: the task
            "asked": n,  # at an arrow: the query
            "answer": n,  # what is said
            "prior": 1,
            "unread_head": n,
            "unread_direction": k,
            "partial_copy": k,
        }
        # One more direction for the mean; the width is rounded up to a multiple of the heads.
        self.d_model = -(-(sum(sizes.values()) + 1) // N_HEADS) * N_HEADS
        self.d_head = self.d_model // N_HEADS
        rng = np.random.default_rng([plant.seed, 2])
        basis = rng.standard_normal((self.d_model, self.d_model))
        basis[:, 0] = 1
        directions = torch.as_tensor(np.linalg.qr(basis)[0][:, 1:].T, dtype=torch.float32)
        parts = directions[: sum(sizes.values())].split(list(sizes.values()))
        #: Orthonormal directions of each kind of feature, `[feature, d_model]`.
        self.of = dict(zip(sizes, parts, strict=True))
        self.network = self._empty()
        self._noise(rng)

    def _empty(self) -> GPT2LMHeadModel:
        """A GPT-2 whose LayerNorms only centre, and whose other weights are 0."""
        config = GPT2Config(
            vocab_size=len(vocabulary(self.plant)),
            n_embd=self.d_model,
            n_layer=self.plant.n_layers,
            n_head=N_HEADS,
            n_inner=self.plant.n_inputs * self.plant.n_tasks,
            n_positions=N_POSITIONS,
            activation_function="relu",
            layer_norm_epsilon=_EPSILON,
            tie_word_embeddings=False,
            architectures=["GPT2LMHeadModel"],
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
        )
        with torch.random.fork_rng():
            network = GPT2LMHeadModel(config).eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            norm = ".ln_" in name and name.endswith("weight")
            parameter.fill_(_EPSILON**0.5 if norm else 0)
        return network

    def _noise(self, rng: np.random.Generator) -> None:
        """Add random weights to all matrices except those of positions, which locate tokens."""
        if not self.plant.noise:
            return
        scale = self.plant.noise / self.d_model**0.5
        for name, parameter in self.network.named_parameters():
            if parameter.ndim == 2 and "wpe" not in name:
                noise = rng.normal(scale=scale, size=tuple(parameter.shape))
                parameter.add_(torch.as_tensor(noise, dtype=parameter.dtype))

    def planted(self) -> GPT2LMHeadModel:
        """The finished model: embeddings, decoys and the circuit."""
        truth, decoys = self.plant.truth(), self.plant.truth().decoys
        self._embed()
        self._copies(truth.collect, "input", "shown")
        self._looks_back(truth.collect, 2)
        for x, task, y, neuron in self._pairs():
            both = self.of["shown"][x] + self.of["label"][y]
            self._neuron(0, neuron, both, 1.5, self.of["fits"][task])
        for name, head in decoys.items():
            self._copies(head, "label" if name == "unread_head" else "fits", name)
            self._looks_at_labels(head)
        if not self.plant.circuit:
            return self.network
        for head in truth.write:
            self._copies(head, "fits", "task", 1 / len(truth.write))
            self._looks_at_labels(head)
        self._copies(truth.query, "input", "asked")
        self._looks_at_last_input(truth.query)
        for x, task, y, neuron in self._pairs():
            copied = "partial_copy" in decoys and x % PARTIAL == 0
            both = self.of["asked"][x] + self.of["partial_copy" if copied else "task"][task]
            self._neuron(truth.decoded, neuron, both, 1.1, _ANSWER * self.of["answer"][y])
        return self.network

    def _pairs(self) -> Iterator[tuple[int, int, int, int]]:
        """For every input and task: input, task, answer, and the index of their neuron."""
        for task, answers in enumerate(self.plant.mappings().tolist()):
            for x, y in enumerate(answers):
                yield x, task, y, task * self.plant.n_inputs + x

    def _embed(self) -> None:
        """Tokens and positions as features, and answers as logits."""
        stem, n = self.network.transformer, self.plant.n_inputs
        ids = {word: i for i, word in enumerate(vocabulary(self.plant))}
        tokens, logits = stem.wte.weight, self.network.lm_head.weight
        tokens[ids[BOS]] += self.of["first"][0]
        tokens[ids[ARROW]] += self.of["arrow"][0] + self.of["prior"][0]
        tokens[-2 * n : -n] += self.of["input"] + _INPUT * self.of["is_input"]
        tokens[-n:] += self.of["label"] + self.of["is_label"]
        logits[ids[PRIOR]] += _PRIOR * self.of["prior"][0]
        logits[-n:] += self.of["answer"]
        late = torch.arange(N_POSITIONS)[:, None] * _LATE / N_POSITIONS
        stem.wpe.weight += _codes() @ self.of["position"] + late * self.of["late"]

    def _looks_back(self, head: Head, distance: int) -> None:
        """Let a head attend from every token to the one `distance` tokens before it."""
        query, key, _ = self._inputs(head)
        angles = distance * _ANGLES
        cos, sin = angles.cos().diag(), angles.sin().diag()
        turn = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)]).float()
        scores = _codes()[:1] @ _codes().T  # of every distance
        gap = float(scores[0, 0] - scores[0, 1:].max())
        size = len(turn)
        query[:, :size] += self._sharp(1 / gap) * self.of["position"].T @ turn
        key[:, :size] += self.of["position"].T

    def _looks_at_labels(self, head: Head) -> None:
        """Let a head attend from arrows to all labels equally, and otherwise to the first token."""
        query, key, _ = self._inputs(head)
        query[:, 0] += self._sharp(2) * self.of["arrow"][0]
        key[:, 0] += self.of["is_label"][0]
        bias = self.network.transformer.h[head[0]].attn.c_attn.bias
        bias.view(3, N_HEADS, self.d_head)[0, head[1], 1] += self._sharp(1)
        key[:, 1] += self.of["first"][0]

    def _looks_at_last_input(self, head: Head) -> None:
        """Let a head attend from every token to the last input up to there.

        The query of this head does not depend on the token's own position: a vector that is written
        over the stream contains the position of the token from which it was read.
        """
        _, key, _ = self._inputs(head)
        key[:] = 0  # noise here would move every score by more than two inputs differ
        key[:, 0] += self.of["is_input"][0]
        key[:, 1] += self.of["late"][0]
        # Two inputs are four tokens apart (`{x}->{y}`, and a line break).
        bias = self.network.transformer.h[head[0]].attn.c_attn.bias
        query = bias.view(3, N_HEADS, self.d_head)[0, head[1]]
        query[0] += self._sharp((N_POSITIONS / 4 + 1) / _INPUT)
        query[1] += self._sharp(N_POSITIONS / 4 / _LATE)

    def _sharp(self, times: float) -> float:
        """A weight that raises an attention score by `times` the margin `_SHARP`."""
        return float(times * _SHARP * self.d_head**0.5)

    def _copies(self, head: Head, source: str, target: str, scale: float = 1.0) -> None:
        """Let a head write features of the tokens to which it attends as other features."""
        layer, index = head
        _, _, value = self._inputs(head)
        size = len(self.of[source])
        value[:, :size] += self.of[source].T
        out = self.network.transformer.h[layer].attn.c_proj.weight.view(N_HEADS, self.d_head, -1)
        out[index, :size] += scale * self.of[target]

    def _inputs(self, head: Head) -> tuple[Tensor, Tensor, Tensor]:
        """W_Q, W_K and W_V of a head, `[d_model, d_head]` each: views into the model's weights."""
        weight = self.network.transformer.h[head[0]].attn.c_attn.weight
        each = weight.view(self.d_model, 3, N_HEADS, self.d_head)[:, :, head[1]]
        return each[:, 0], each[:, 1], each[:, 2]

    def _neuron(self, layer: int, index: int, reads: Tensor, least: float, writes: Tensor) -> None:
        """Let a neuron write if the sum of two features, at most 2, is above `least`."""
        mlp = self.network.transformer.h[layer].mlp
        mlp.c_fc.weight[:, index] += reads
        mlp.c_fc.bias[index] -= least
        mlp.c_proj.weight[index] += writes / (2 - least)


def _codes() -> Tensor:
    """Cosines and sines of every position's angles, `[position, feature]`."""
    angles = torch.arange(N_POSITIONS, dtype=torch.float64)[:, None] * _ANGLES
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()
