"""`TaskVector`: a task vector to write into prompts, do arithmetic with, save and load.

Hendel et al. 2023 (arXiv 2310.15916), section 3.2: theta is the residual stream after block `l` at
the last token of a few-shot prompt. Written at the same place of another prompt, it makes the model
do the task there.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from icl_mech.errors import InputError, choose, first_line
from icl_mech.layers import SITES, Mode, Site, check_layer
from icl_mech.model import Edit, HookedModel, TopTokens, check_model
from icl_mech.model.edits import HOOKS, Role
from icl_mech.prompts import DEFAULT_TEMPLATE, accepted, generator, zero_shot
from icl_mech.results import write_whole
from icl_mech.stats import Estimate, proportion
from icl_mech.tasks import Episode, Task, load_task

_FORMAT = "icl-mech task vector 1"
#: The format of vectors that are written at another site, or in several blocks. Older versions
#: refuse it; they would write such a vector after one block.
_FORMAT_2 = "icl-mech task vector 2"


@dataclass(frozen=True, eq=False)
class TaskVector:
    """One vector for every layer that was read, and how it is written.

    Attributes:
        name: of the task, or of the arithmetic that made it.
        values: the vector of every layer, `[layer, d_model]`, float32.
        layers: the blocks in which they were read, from 0.
        layer: the block in which it is written; None if none was chosen.
        mode: `"replace"` (Hendel et al.) or `"add"`.
        scale: factor on the vector when it is written.
        sets: the vectors of single demonstration sets, `[set, layer, d_model]`, of which `values`
            is the mean; None after arithmetic.
        provenance: model, weights, task, settings and seed.
        allow_other_model: whether it may be written into a model that it was not read from, as
            `written(allow_other_model=True)` says. Files do not keep this.
        site: where in a block it is written, as in `Edit`: by default after it; `"attn_out"` for a
            vector of attention outputs. (Not one head's `"z"`.)
        through: whether it is written in every block of `layers` up to `layer` at once, each
            block with its own vector, instead of in `layer` alone.

    Every function that takes a vector takes a `TaskVector`, and calls `check_fits` on it.
    """

    name: str
    values: Float[Tensor, "layer d_model"]
    layers: tuple[int, ...]
    layer: int | None = None
    mode: Mode = "replace"
    scale: float = 1.0
    sets: Float[Tensor, "set layer d_model"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    allow_other_model: bool = False
    site: Site = "resid_post"
    through: bool = False

    def __post_init__(self) -> None:
        choose(self.mode, get_args(Mode), "mode")
        choose(self.site, [site for site in SITES if site != "z"], "site")
        if self.values.ndim != 2 or len(self.values) != len(self.layers) or not self.layers:
            raise InputError(
                f"values have the shape {list(self.values.shape)} for {len(self.layers)} layers; "
                "expected a vector for each, [layer, d_model]"
            )
        self._check_finite()
        if self.layer is not None and self.layer not in self.layers:
            raise InputError(f"no vector after block {self.layer}; it has {_runs(self.layers)}")

    def __repr__(self) -> str:
        place = "no layer chosen" if self.layer is None else self.place
        n = "" if self.sets is None else f", mean of {len(self.sets)}"
        scale = "" if self.scale == 1 else f" x {self.scale:g}"
        return (
            f"TaskVector({self.name!r}, {place}{scale}, {self.mode}, {_runs(self.layers)}, "
            f"d_model {self.d_model}{n}, of {self.provenance.get('model', 'an unknown model')})"
        )

    def _repr_html_(self) -> str:
        norms = ", ".join(f"{n:.1f}" for n in self.values.norm(dim=-1).tolist())
        rows = {
            "written": f"{self.place}, {self.mode}, scale {self.scale:g}",
            "read": f"{_runs(self.layers)}, d_model {self.d_model}",
            "norms by layer": norms,
            "model": str(self.provenance.get("model", "unknown")),
        }
        cells = "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
        return f"<table><caption>TaskVector {escape(self.name)}</caption>{cells}</table>"

    @property
    def d_model(self) -> int:
        """Length of the vector."""
        return int(self.values.shape[1])

    @property
    def place(self) -> str:
        """Where it is written, in words."""
        preposition = "after" if self.site == "resid_post" else f"at {self.site} of"
        return f"{preposition} {'every block up to' if self.through else 'block'} {self.layer}"

    @property
    def shown(self) -> frozenset[str]:
        """The inputs of the demonstrations that it was read from, as far as that is recorded."""
        return frozenset(map(str, self.provenance.get("shown", ())))

    def recorded(self) -> dict[str, Any]:
        """What the provenance of a result records: how it is written, and its own provenance."""
        return {
            "name": self.name,
            "mode": self.mode,
            "scale": self.scale,
            "site": self.site,
            "through": self.through,
            "provenance": dict(self.provenance),
        }

    # --- writing it --------------------------------------------------------------------------

    def vector(self, layer: int | None = None) -> Float[Tensor, "d_model"]:
        """The vector of one layer, by default of the chosen one, without the scale.

        Raises:
            InputError: if no layer was chosen, or there is no vector of that layer.
        """
        layer = self._layer(layer)
        return self.values[self.layers.index(layer)]

    def written(
        self,
        layer: int | None = None,
        mode: Mode | None = None,
        scale: float | None = None,
        allow_other_model: bool | None = None,
    ) -> "TaskVector":
        """The same vector, written after another block, in another way, or with another factor.

        Args:
            layer, mode, scale: as in the attributes; None leaves each as it is.
            allow_other_model: let it be written into a model that it was not read from, if that
                has the same width and no fewer layers.

        Example:
            >>> tv = TaskVector("t", torch.ones(2, 4), (0, 1), layer=1)
            >>> tv.written(mode="add", scale=2.0)
            TaskVector('t', after block 1 x 2, add, layers 0, 1, d_model 4, of an unknown model)
        """
        return replace(
            self,
            layer=self.layer if layer is None else self._layer(layer),
            mode=self.mode if mode is None else mode,
            scale=self.scale if scale is None else float(scale),
            allow_other_model=(
                self.allow_other_model if allow_other_model is None else allow_other_model
            ),
        )

    def edit(self, layer: int | None = None, at: Role = -1) -> Edit:
        """The vector as an edit of one token.

        Args:
            layer: the block after which it is written; by default the chosen one.
            at: the token: an index, or a role such as `"final_arrow"`.

        Raises:
            InputError: as in `vector`; also if it is written in several blocks at once and no
                `layer` is given.
        """
        if layer is None and self.through:
            raise InputError(
                f"vector {self.name!r} is written in several blocks at once, and is no single "
                "edit; expected edits(), or one of its layers"
            )
        layer = self._layer(layer)
        value = self.vector(layer)
        return Edit(layer, value, self.site, at, self.mode, self.scale, vector=self)

    def edits(self, layer: int | None = None, at: Role = -1) -> list[Edit]:
        """The edits that are applied together: one, or one in every block up to the layer.

        Args:
            layer: the block in which it is written, by default the chosen one. For a vector that
                is written in several blocks at once, it is the last of them.
            at: as in `edit`.

        Raises:
            InputError: as in `vector`.

        Example:
            >>> tv = TaskVector("t", torch.ones(3, 4), (0, 1, 2), 1, through=True)
            >>> [edit.layer for edit in tv.edits()]
            [0, 1]
        """
        last = self._layer(layer)
        return [self.edit(n, at) for n in (self.layers if self.through else (last,)) if n <= last]

    def check_one_block(self, what: str) -> None:
        """Refuse a vector that is not written after one block.

        Args:
            what: the question that needs one, for the message.

        Raises:
            InputError: saying where it is written.
        """
        if self.through or self.site != "resid_post":
            raise InputError(
                f"vector {self.name!r} is written {self.place}; {what} expected a vector that "
                "is written after one block, at resid_post"
            )

    @contextmanager
    def apply(
        self,
        model: HookedModel,
        layer: int | None = None,
        at: int = -1,
        allow_other_model: bool = False,
    ) -> Iterator[None]:
        """Write the vector in every forward pass of the TransformerLens model within the context.

        This works for `model.bridge(...)`, `model.bridge.generate(...)` and anything else that runs
        it. In a pass over several tokens the vector is written at token `at`. A pass over one token
        that continues others (the next step of a generation with a cache) is left alone.

        Args:
            model: its `bridge` is hooked.
            layer: as in `edits`.
            at: the token's index; -1 is the last. A generation without a cache runs the whole text
                at every step: count the index from the beginning then.
            allow_other_model: write it into a model that it was not read from.

        Raises:
            InputError: if the vector is of another model, width or number of layers.
        """
        self.check_fits(model, allow_other_model)
        with model.bridge.hooks(fwd_hooks=[_hook(edit, at) for edit in self.edits(layer)]):
            yield

    def check_fits(self, model: HookedModel, allow_other_model: bool = False) -> None:
        """Refuse a model of another size, or other weights than the vector was read from.

        Raises:
            InputError: naming the vector and the model.
        """
        check_model(model)
        self._check_finite()
        if self.d_model != model.d_model or max(self.layers) >= model.n_layers:
            raise InputError(
                f"vector {self.name!r} has {_runs(self.layers)} of width {self.d_model}; "
                f"{model.name} has {model.n_layers} layers of width {model.d_model}"
            )
        of, sha = self.provenance.get("model"), self.provenance.get("weights_sha256")
        allowed = allow_other_model or self.allow_other_model
        if not allowed and sha is not None and sha != model.weight_hash:
            raise InputError(
                f"vector {self.name!r} was read from {of}, and these are the weights of "
                f"{model.name}; expected the same model "
                "(vector.written(allow_other_model=True) may be written anyway)"
            )

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse layers that it has no vector of.

        Raises:
            InputError: naming the first such layer.
        """
        for layer in layers:
            self._layer(layer)

    # --- arithmetic --------------------------------------------------------------------------

    def __add__(self, other: "TaskVector") -> "TaskVector":
        return self._with(other, torch.add, "+")

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        return self._with(other, torch.sub, "-")

    def __mul__(self, factor: float) -> "TaskVector":
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        name = f"{factor:g} * {_in_brackets(self.name)}"
        sets = None if self.sets is None else self.sets * factor
        return replace(self, name=name, values=self.values * factor, sets=sets)

    __rmul__ = __mul__

    def __neg__(self) -> "TaskVector":
        return self * -1.0

    @staticmethod
    def mean(vectors: Sequence["TaskVector"]) -> "TaskVector":
        """The mean of vectors of one model.

        Raises:
            InputError: if there is none, or they do not belong together.
        """
        if not vectors:
            raise InputError("no vectors; expected at least one")
        total = vectors[0]
        for vector in vectors[1:]:
            total = total + vector
        name = f"mean({', '.join(vector.name for vector in vectors)})"
        return replace(total, name=name, values=total.values / len(vectors), sets=None)

    def cosine(self, other: "TaskVector") -> Float[Tensor, "layer"]:
        """Cosine similarity at every layer."""
        self._check_same(other)
        return torch.nn.functional.cosine_similarity(self.values, other.values, dim=-1)

    # --- reading it --------------------------------------------------------------------------

    def top_tokens(self, model: HookedModel, k: int = 10, layer: int | None = None) -> list[str]:
        """The texts of the k most probable tokens if the vector is read with the logit lens.

        The logit lens applies the final norm and the unembedding. The texts may hold any
        characters: escape them in HTML.

        Raises:
            InputError: if the model does not fit, or there is no such layer.
        """
        self.check_fits(model)
        found: TopTokens = model.vocabulary.top_tokens(self.vector(layer)[None, None], k)
        return [model.to_string(token) for token in found.ids[0].tolist()]

    def accuracy(
        self,
        model: HookedModel,
        task: Task | str,
        n_prompts: int = 50,
        seed: int = 0,
        layer: int | None = None,
    ) -> Estimate:
        """The share of a task's zero-shot prompts answered right with the vector in place.

        An answer is right if its first token is that of an accepted answer. Inputs that the
        vector's own demonstrations showed are not asked.

        Args:
            model: the model that the vector is written into.
            task: a task or its name.
            n_prompts: number of queries; fewer if the task has fewer that were not shown.
            seed: of the draw.
            layer: as in `edits`.

        Returns:
            The share with its Wilson interval.

        Raises:
            InputError: if the model does not fit, or no query is left.
        """
        self.check_fits(model)
        chosen = load_task(task) if isinstance(task, str) else task
        left = [pair for pair in chosen.pairs if pair.x not in self.shown]
        if not left:
            raise InputError(f"task {chosen.name!r} has no input that the vector was not shown")
        rng = generator(seed, "accuracy")
        asked = [left[i] for i in rng.permutation(len(left))[:n_prompts]]
        episodes = [Episode((), pair, ()) for pair in asked]
        encoder = model.encoder(
            str(self.provenance.get("template", DEFAULT_TEMPLATE)),
            [pair.y for pair in chosen.pairs],
            self.provenance.get("leading_space"),
        )
        prompts = zero_shot(encoder, episodes)
        answers = accepted(encoder, prompts, episodes).first_tokens
        readout = model.evaluate(prompts, [self.edits(layer, "final_arrow")], answers)
        return proportion(readout.right[:, 0])

    # --- files -------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a `.safetensors` file with the vectors; the other attributes are its metadata.

        Raises:
            InputError: if it cannot be written.
        """
        tensors = {"values": self.values.contiguous()}
        if self.sets is not None:
            tensors["sets"] = self.sets.contiguous()
        said = {
            "format": _FORMAT_2 if self.through or self.site != "resid_post" else _FORMAT,
            "name": self.name,
            "layers": json.dumps(list(self.layers)),
            "layer": json.dumps(self.layer),
            "mode": self.mode,
            "scale": repr(float(self.scale)),
            "provenance": json.dumps(dict(self.provenance)),
            "site": self.site,
            "through": json.dumps(self.through),
        }
        return write_whole(path, lambda scratch: save_file(tensors, scratch, said))

    def to_gguf(self, path: str | Path, layer: int | None = None) -> Path:
        """Write the vector as a control vector of llama.cpp, which adds it after its blocks.

        Args:
            path: of the `.gguf` file.
            layer: as in `edits`.

        Raises:
            InputError: if the vector replaces (llama.cpp adds), is written inside a block, or is
                written after block 0, to which llama.cpp adds nothing.
        """
        edits = self.edits(layer)
        if self.mode != "add":
            raise InputError(
                f"vector {self.name!r} replaces, and llama.cpp adds; expected a vector that is "
                "added: written(mode='add', scale=...)"
            )
        if self.site != "resid_post":
            raise InputError(
                f"vector {self.name!r} is written {self.place}, and llama.cpp adds after a "
                "block; expected one of site 'resid_post'"
            )
        if edits[0].layer == 0:
            raise InputError("layer 0: llama.cpp adds nothing after its first block; expected 1 on")

        import gguf

        def write(scratch: Path) -> None:
            writer = gguf.GGUFWriter(scratch, "controlvector")
            writer.add_string("controlvector.model_hint", str(self.provenance.get("model", "")))
            writer.add_uint32("controlvector.layer_count", len(edits))
            for edit in edits:
                writer.add_tensor(f"direction.{edit.layer}", (edit.value * edit.scale).numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()

        return write_whole(path, write)

    @staticmethod
    def load(path: str | Path) -> "TaskVector":
        """Read what `save` wrote.

        Raises:
            InputError: if it is another kind of file, or damaged.
        """
        source = Path(path).expanduser()
        try:
            with safe_open(source, "pt") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{source}: cannot be read ({first_line(error)})") from error
        if said.get("format") not in (_FORMAT, _FORMAT_2) or "values" not in tensors:
            raise InputError(
                f"{source}: no task vector; expected a file that TaskVector.save wrote"
            )
        try:
            return TaskVector(
                said["name"],
                tensors["values"],
                tuple(json.loads(said["layers"])),
                json.loads(said["layer"]),
                said["mode"],
                float(said["scale"]),
                tensors.get("sets"),
                json.loads(said["provenance"]),
                site=said.get("site", "resid_post"),
                through=bool(json.loads(said.get("through", "false"))),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{source}: damaged ({first_line(error)})") from error

    # --- implementation ----------------------------------------------------------------------

    def _check_finite(self) -> None:
        if not (math.isfinite(self.scale) and bool(torch.isfinite(self.values).all())):
            raise InputError(f"vector {self.name!r} holds NaN or infinity; expected finite numbers")

    def _layer(self, layer: int | None) -> int:
        if layer is None:
            if self.layer is None:
                raise InputError(
                    f"vector {self.name!r} has no chosen layer; expected layer=, one of "
                    f"{_runs(self.layers)}"
                )
            return self.layer
        n = max(self.layers) + 1
        check_layer(layer, n)
        if layer % n not in self.layers:
            raise InputError(f"no vector after block {layer}; it has {_runs(self.layers)}")
        return layer % n

    def _check_same(self, other: "TaskVector") -> None:
        if not isinstance(other, TaskVector):
            raise InputError(f"a {type(other).__name__}; expected a TaskVector")
        mine, theirs = (v.provenance.get("weights_sha256") for v in (self, other))
        places = [(v.layers, v.d_model, v.site, v.through) for v in (self, other)]
        if places[0] != places[1] or mine != theirs:
            raise InputError(
                f"{self!r} and {other!r} do not belong together; expected vectors of one model at "
                "the same layers, which are written alike"
            )

    def _with(
        self, other: "TaskVector", do: Callable[[Tensor, Tensor], Tensor], sign: str
    ) -> "TaskVector":
        self._check_same(other)
        name = f"{self.name} {sign} {_in_brackets(other.name)}"
        mode = self.mode if self.mode == other.mode else "add"
        values = do(self.values * self.scale, other.values * other.scale)
        said = {**self.provenance}
        if self.shown or other.shown:
            said["shown"] = sorted(self.shown | other.shown)
        return replace(
            self, name=name, values=values, mode=mode, scale=1.0, sets=None, provenance=said
        )


def _hook(edit: Edit, at: int) -> tuple[str, Callable[[Tensor, Any], Tensor]]:
    """The name and function of a bridge hook that writes an edit at token `at` of each text."""
    seen: list[int] = []

    def write(activation: Tensor, hook: Any) -> Tensor:
        n_tokens = activation.shape[1]
        if n_tokens == 1 and (at not in (0, -1) or seen):
            return activation
        if not -n_tokens <= at < n_tokens:
            raise InputError(f"token {at} out of range for a text of {n_tokens} tokens")
        seen.append(n_tokens)
        activation = activation.clone()
        ours = edit.value.to(activation) * edit.scale
        activation[:, at] = ours if edit.mode == "replace" else activation[:, at] + ours
        return activation

    return HOOKS[edit.site].format(edit.layer), write


def _in_brackets(name: str) -> str:
    return f"({name})" if " " in name else name


def _runs(layers: Sequence[int]) -> str:
    """Layers as text: `layers 0 to 17`, or a list if they are not consecutive."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
