"""`HookedModel.vocabulary`: reads vectors as tokens through the unembedding."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.arguments import check_tensor
from icl_mech.model.chunked_logits import ChunkedLogits
from icl_mech.model.engine import Engine
from icl_mech.prompts import whole


@dataclass(frozen=True)
class TopTokens:
    """The most probable tokens, most probable first.

    Attributes:
        ids: their ids.
        logprob: their log probabilities (nats), normalised over all tokens of the vocabulary.
    """

    ids: Int[Tensor, "... k"]
    logprob: Float[Tensor, "... k"]


class Vocabulary:
    """Reads vectors through a model's own final norm and unembedding."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} tokens: top_tokens, distances, logits, words)"

    def __len__(self) -> int:
        """Columns of the unembedding."""
        return int(self._engine.bridge.unembed.W_U.shape[1])

    def check_count(self, k: int, name: str = "top_k", least: int = 1) -> None:
        """Raise InputError unless k is from `least` to the vocabulary's size.

        `name` is the argument's name in the message.
        """
        if not least <= whole(name, k) <= len(self):
            raise InputError(f"{name} is {k}; expected {least} to {len(self)}, the vocabulary")

    def top_tokens(
        self,
        vectors: Float[Tensor, "group row d_model"],
        k: int,
        allowed: Bool[Tensor, "vocab"] | None = None,
    ) -> TopTokens:
        """The tokens with the largest log probability, averaged over the rows of each group.

        Args:
            vectors: vectors that stand for the residual stream after the last block.
            k: how many tokens.
            allowed: tokens that may be among them; all by default.

        Raises:
            InputError: where there are fewer than `k` tokens.
            ModelError: where the logits are not finite.
        """
        self.check_count(k, "k")
        width = self._engine.bridge.cfg.d_model
        vectors = check_tensor(vectors, "vectors", "group, row, d_model", width)
        if allowed is not None and int(allowed.sum()) < k:
            raise InputError(f"{int(allowed.sum())} tokens pass the filter; expected at least {k}")
        return TopTokens(*self._engine.top_of_means(vectors, k, allowed))

    def distances(
        self, first: Float[Tensor, "row d_model"], second: Float[Tensor, "row other d_model"]
    ) -> tuple[Float[Tensor, "row other"], Float[Tensor, "row other"]]:
        """The KL divergence and total variation between next-token distributions.

        Whole rows of logits are never kept.

        Args:
            first: residual streams after the last block.
            second: for each of them, the streams that it is compared with.

        Returns:
            KL(first || second) in nats, and total variation (0 to 1), of every pair.

        Raises:
            InputError: where the numbers of rows differ.
            ModelError: where the logits are not finite.
        """
        width = self._engine.bridge.cfg.d_model
        first = check_tensor(first, "first", "row, d_model", width)
        second = check_tensor(second, "second", "row, other, d_model", width)
        if len(first) != len(second):
            raise InputError(f"{len(first)} rows and {len(second)}; expected as many")
        kl, apart = self._engine.distances(first, second)
        return kl, apart

    def logits(
        self, vectors: Float[Tensor, "row d_model"], tokens: Int[Tensor, "other token"]
    ) -> Float[Tensor, "row token"]:
        """The model's logits of a few tokens, for vectors that stand after the last block.

        They include the final norm and any scale and soft cap of the logits.

        Raises:
            InputError: where the numbers of rows differ, or a token is not in the vocabulary.
        """
        vectors = check_tensor(vectors, "vectors", "row, d_model", self._engine.bridge.cfg.d_model)
        if len(vectors) != len(tokens):
            raise InputError(f"{len(vectors)} rows and {len(tokens)}; expected as many")
        if not bool(((tokens >= 0) & (tokens < len(self))).all()):
            raise InputError(f"a token is out of range; expected 0 to {len(self) - 1}")
        with torch.no_grad():
            read = ChunkedLogits(self._engine.bridge, vectors.to(self._engine.dtype))
            return read.at(tokens.to(read.hidden.device))

    def words(self) -> Bool[Tensor, "vocab"]:
        """Which tokens consist of letters only, apart from spaces around them."""
        tokenizer = self._engine.bridge.tokenizer
        known = min(len(tokenizer), len(self))
        texts = tokenizer.batch_decode([[token] for token in range(known)])
        special = set(tokenizer.all_special_ids)
        flags = [t.strip().isalpha() and i not in special for i, t in enumerate(texts)]
        return torch.tensor(flags + [False] * (len(self) - known))
