"""Facts about a model: its sizes, engine, sites, attention windows and first token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from icl_mech.errors import ModelError
from icl_mech.model import HookedModel
from icl_mech.model.network import places_of, sliding_window
from icl_mech.prompts import Encoder, Prompt

#: The most runs of blocks that a line names.
_NAMED = 12
#: The longest sliding window that is measured.
_LONGEST = 1024


@dataclass(frozen=True)
class Facts:
    """What a check reports about a model.

    Attributes:
        model: its name.
        architecture: the name of its class in Transformers.
        engine, engine_reason: which engine runs it, and why.
        n_layers, n_heads, d_model: numbers of blocks and heads, and the width of the stream.
        context_length: the most tokens that it reads; None where there is no limit.
        dtype, device: of weights and activations.
        sites: the blocks in which each site can be edited.
        windows: the sliding window of every block, None if it has none; empty if masks are not read
            (the plain engine).
        windows_up_to: the length of the prompts in which they were measured.
        sink, sink_reason: the token that every prompt begins with, and why.
        leading_space: whether words are written with a space before them.
        prompts: what was run.
    """

    model: str
    architecture: str
    engine: str
    engine_reason: str
    n_layers: int
    n_heads: int
    d_model: int
    context_length: int | None
    dtype: str
    device: str
    sites: Mapping[str, Sequence[int]]
    windows: Sequence[int | None]
    windows_up_to: int
    sink: str
    sink_reason: str
    leading_space: bool
    prompts: str

    @staticmethod
    def of(
        model: HookedModel, encoder: Encoder, prompts: Sequence[Prompt], described: str
    ) -> "Facts":
        """Collect the facts.

        Masks are read in prompts as long as the longest of these, or longer than the model's
        sliding window.
        """
        longest = max(map(len, prompts))
        windows, length = _windows(model, longest)
        return Facts(
            model=model.name,
            architecture=model.architecture,
            engine=model.engine,
            engine_reason=model.engine_reason,
            n_layers=model.n_layers,
            n_heads=model.n_heads if model.sites["z"] else 0,
            d_model=model.d_model,
            context_length=model.context_length,
            dtype=str(model.dtype).removeprefix("torch."),
            device=places_of(model.bridge),
            sites=model.sites,
            windows=windows,
            windows_up_to=length,
            sink=model.to_string(model.sink.token),
            sink_reason=model.sink.reason,
            leading_space=encoder.template.leading_space,
            prompts=f"{described}, of up to {longest} tokens",
        )

    def lines(self) -> dict[str, str]:
        """Everything in words, by subject."""
        heads = f"{self.n_heads} heads" if self.n_heads else "no heads that can be edited"
        limit = self.context_length
        why = f" ({self.engine_reason})" if self.engine_reason else ""
        return {
            "model": f"{self.model}, {self.dtype} on {self.device}",
            "family": self.architecture,
            "size": f"{self.n_layers} layers, {heads}, d_model {self.d_model}",
            "context": "any number of tokens" if limit is None else f"{limit:,} tokens",
            "engine": f"{self.engine}{why}",
            "sites": self._sites(),
            "masks": self._masks(),
            "first token": f"{self.sink!r} ({self.sink_reason})",
            "words": f"with{'' if self.leading_space else 'out'} a leading space",
            "prompts": self.prompts,
        }

    def _sites(self) -> str:
        everywhere = [s for s, blocks in self.sites.items() if len(blocks) == self.n_layers]
        parts = [f"{', '.join(everywhere)} in every block"] if everywhere else []
        for site, blocks in self.sites.items():
            if 0 < len(blocks) < self.n_layers:
                parts.append(f"{site} in blocks {spans(blocks)}")
        nowhere = [site for site, blocks in self.sites.items() if not blocks]
        return "; ".join([*parts, *([f"no {', '.join(nowhere)}"] if nowhere else [])])

    def _masks(self) -> str:
        if not self.windows:
            return "the model's own, which are not read"
        parts = []
        for window in dict.fromkeys(self.windows):
            blocks = [i for i, theirs in enumerate(self.windows) if theirs == window]
            where = "every block" if len(blocks) == self.n_layers else f"blocks {spans(blocks)}"
            sees = "all earlier tokens" if window is None else f"the last {window} tokens"
            parts.append(f"{where}: {sees}")
        return f"{'; '.join(parts)} (as seen in prompts of up to {self.windows_up_to} tokens)"


def spans(blocks: Sequence[int]) -> str:
    """Block numbers in few words.

    >>> spans([0, 1, 2, 5])
    '0-2, 5'
    """
    runs = [
        [block for _, block in run]
        for _, run in groupby(enumerate(blocks), key=lambda pair: pair[1] - pair[0])
    ]
    named = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join([*named[:_NAMED], *(["..."] if len(named) > _NAMED else [])])


def _windows(model: HookedModel, longest: int) -> tuple[list[int | None], int]:
    """Every block's window, and the length of the prompts in which it was measured."""
    for length in (_long_enough(model, longest), longest):
        try:
            return model.windows(length) or [], length
        except ModelError:  # it may fail for longer prompts only
            continue
    return [], longest


def _long_enough(model: HookedModel, longest: int) -> int:
    """The length of a prompt that is longer than the sliding window in the configuration."""
    window, limit = sliding_window(model.bridge), model.context_length
    if window is None or window >= _LONGEST:
        return longest
    return max(longest, min(window + 1, limit or window + 1))
