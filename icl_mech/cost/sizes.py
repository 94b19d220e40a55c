"""The sizes of a model that determine the cost of running it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_mech.errors import InputError

#: Families whose MLP has two matrices, without a third one for a gate.
UNGATED = (
    *("gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "codegen", "bloom", "falcon", "mpt"),
    *("opt", "phi", "starcoder2"),
)
#: Entries of configurations whose blocks are not counted here (experts, state spaces).
_OTHER_BLOCKS = (
    *("num_local_experts", "num_experts", "n_routed_experts"),
    *("state_size", "mamba_d_state", "linear_num_value_heads"),
)
_NAMES = {
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "d_vocab": ("vocab_size",),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "d_head": ("head_dim",),
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim"),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A dense transformer's sizes.

    Attributes:
        n_layers, d_model, n_heads, d_head, d_mlp, d_vocab: the usual sizes.
        n_kv_heads: the number of heads of keys and values.
        gated: whether the MLP has a third matrix, whose product is the gate (Llama, Gemma).
        tied: whether the embedding is the unembedding too.

    Example:
        >>> Sizes(n_layers=2, d_model=8, n_heads=2, n_kv_heads=1, d_head=4, d_mlp=16,
        ...       d_vocab=100).weights
        1952
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    gated: bool = True
    tied: bool = True

    @staticmethod
    def of(config: Any) -> "Sizes":
        """The sizes in a configuration of Transformers, or in the entries of its `config.json`.

        Raises:
            InputError: where an entry is missing, or blocks are not attention and a dense MLP.
        """
        entries = config if isinstance(config, Mapping) else config.to_dict()
        entries = entries.get("text_config", entries)
        unlike = [name for name in _OTHER_BLOCKS if entries.get(name)]
        if unlike:
            raise InputError(
                f"the configuration has {unlike[0]!r}; expected a dense transformer: the cost of "
                "experts and of state spaces is not modelled"
            )
        found: dict[str, Any] = {
            size: next((entries[name] for name in names if entries.get(name)), None)
            for size, names in _NAMES.items()
        }
        missing = [
            size for size in ("n_layers", "d_model", "n_heads", "d_vocab") if not found[size]
        ]
        if missing:
            raise InputError(
                f"the configuration does not say {missing[0]}; expected an entry "
                f"{' or '.join(map(repr, _NAMES[missing[0]]))}"
            )
        if entries.get("multi_query") and not entries.get("new_decoder_architecture"):
            found["n_kv_heads"] = 1  # Falcon 7B's configuration names more than it has
        found["n_kv_heads"] = found["n_kv_heads"] or found["n_heads"]
        found["d_head"] = found["d_head"] or found["d_model"] // found["n_heads"]
        found["d_mlp"] = found["d_mlp"] or 4 * found["d_model"]
        # Transformers ties the embeddings by default, as in Gemma and GPT-2.
        tied = bool(entries.get("tie_word_embeddings", True))
        return Sizes(**found, gated=entries.get("model_type") not in UNGATED, tied=tied)

    @property
    def attention_in(self) -> list[tuple[int, int]]:
        """The matrices of queries, keys and values: (width of the input, width of the output)."""
        keys = self.n_kv_heads * self.d_head
        return [(self.d_model, width) for width in (self.n_heads * self.d_head, keys, keys)]

    @property
    def block(self) -> list[tuple[int, int]]:
        """All matrices of a block, in the order in which they are applied."""
        up = [(self.d_model, self.d_mlp)] * (2 if self.gated else 1)
        out = (self.n_heads * self.d_head, self.d_model)
        return [*self.attention_in, out, *up, (self.d_mlp, self.d_model)]

    @property
    def weights(self) -> int:
        """The number of weights in all matrices; norms, biases and positions add little."""
        in_blocks = self.n_layers * sum(a * b for a, b in self.block)
        return in_blocks + self.d_vocab * self.d_model * (1 if self.tied else 2)
