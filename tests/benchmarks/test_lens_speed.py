"""The logit lens against TransformerLens's own readout, in one run. `make bench` runs it."""

from collections.abc import Callable

import pytest
import torch
from comparing import N_LAYERS, TASK, report
from transformer_lens.tools.analysis.logit_lens import logit_readout

from icl_mech.lens.plan import LensSettings, plan_lens
from icl_mech.lens.targets import Asked, Columns
from icl_mech.model import HookedModel
from icl_mech.model.chunked_logits import ChunkedLogits
from icl_mech.model.readout import read
from icl_mech.prompts import Encoder

N_PROMPTS, TOP_K = 25, 5


Arrays = list[torch.Tensor]


def readouts(model: HookedModel, stream: torch.Tensor, targets: torch.Tensor) -> Arrays:
    """One call of `logit_readout` per column of targets, and one for the top tokens."""
    columns = [
        logit_readout(model.bridge, stream, targets=t.clamp_min(0), return_type="log_probs")
        for t in targets.T
    ]
    top = logit_readout(model.bridge, stream, top_k=TOP_K, return_type="log_probs")
    logprob = torch.cat([c.values for c in columns], dim=1)
    rank = torch.cat([c.target_ranks for c in columns], dim=1)
    return [logprob, rank, top.top_ids, top.values]


def whole_rows(model: HookedModel, stream: torch.Tensor, targets: torch.Tensor) -> Arrays:
    """Whole rows of log probabilities, a prompt's layers at a time, and everything from them."""
    parts = []
    for at in range(0, len(stream), N_LAYERS + 1):
        here = slice(at, at + N_LAYERS + 1)
        read = logit_readout(model.bridge, stream[here], return_type="log_probs").values
        logprob = read.gather(1, targets[here].clamp_min(0))
        rank = torch.stack([(read > column[:, None]).sum(1) for column in logprob.T], dim=1)
        top = read.topk(TOP_K)
        parts.append([logprob, rank, top.indices, top.values])
    return [torch.cat(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("plain", [readouts, whole_rows])
def test_answer_rivals_and_top_tokens_at_every_layer(
    benchmark, model: HookedModel, encoder: Encoder, plain: Callable[..., Arrays]
) -> None:
    """25 prompts x 19 layers: log probability and rank of the targets, and the top 5.

    All start from the same residual streams.
    """
    (planned,) = plan_lens(TASK, LensSettings(n_prompts=N_PROMPTS)).tasks
    asked = Asked.of(encoder, planned)
    targets = torch.tensor(Columns.of(asked.tokens).ids.repeat(N_LAYERS + 1, axis=0))
    stream = model.residual_stream(asked.prompts, ["final_arrow"]).flatten(0, 2)

    def ours() -> Arrays:
        found = model.read(stream, targets.tolist(), TOP_K)
        assert found.best is not None
        assert found.best_logprob is not None
        return [found.logprob, found.rank, found.best, found.best_logprob]

    def theirs() -> Arrays:
        return plain(model, stream, targets)

    known = targets >= 0
    logprob, rank, top, top_logprob = ours()
    plain_logprob, plain_rank, plain_top, plain_top_logprob = theirs()
    torch.testing.assert_close(logprob[known], plain_logprob[known], atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(top_logprob, plain_top_logprob, atol=2e-3, rtol=1e-4)
    # Rounding swaps tokens that are nearly as probable as each other.
    off = (rank[known] - plain_rank[known]).abs()
    assert bool((off <= 2 + 1e-3 * plain_rank[known]).all())
    assert float((top == plain_top).float().mean()) > 0.99
    print(f"\n{len(stream)} rows, {targets.shape[1]} targets each, top {TOP_K}: {plain.__name__}")
    report(benchmark, ours, theirs, rounds=3)


def test_one_pass_over_each_chunk(benchmark, model: HookedModel) -> None:
    """Every layer of a prompt: top 5, entropy, and a rank, each from the same chunks of logits.

    The plain way asks torch for each by itself: `topk`, `logsumexp`, `softmax`.
    """
    prompt = model.prompt("Japan->Tokyo\nFrance->Paris\nPeru->Lima\nKenya->Nairobi\nCanada->")
    stream = model.residual_stream([prompt], list(range(len(prompt)))).flatten(0, 2)
    target = torch.full((len(stream), 1), int(prompt.tokens[-1]))

    def ours() -> Arrays:
        with torch.no_grad():
            found = read(model.bridge, stream, target, TOP_K, entropy=True)
        assert found.best_logprob is not None
        assert found.entropy is not None
        return [found.logprob[:, 0], found.rank[:, 0], found.best_logprob, found.entropy]

    def plain() -> Arrays:
        parts = []
        with torch.no_grad():
            chunks = ChunkedLogits(model.bridge, stream)
            wanted = chunks.at(target)
            for _, part in chunks:
                total = part.logsumexp(dim=1)
                mean = (part.softmax(dim=1) * part).sum(dim=1)
                above = (part > wanted).sum(dim=1)
                parts.append((total, mean, above, part.topk(TOP_K).values))
        totals, means, aboves, tops = zip(*parts, strict=True)
        total = torch.stack(totals).logsumexp(dim=0)
        mean = (torch.stack(means) * (torch.stack(totals) - total).exp()).sum(dim=0)
        top = torch.cat(tops, dim=1).topk(TOP_K).values
        return [
            wanted[:, 0] - total,
            torch.stack(aboves).sum(dim=0),
            top - total[:, None],
            total - mean,
        ]

    for name, one, other in zip(
        ("logprob", "rank", "top", "entropy"), ours(), plain(), strict=True
    ):
        # A target's own logit may be rounded otherwise than in its chunk.
        off = 1.0 if name == "rank" else 2e-3
        torch.testing.assert_close(one.float(), other.float(), atol=off, rtol=1e-4)
    print(f"\n{len(stream)} rows, top {TOP_K}, entropy and a rank")
    report(benchmark, ours, plain, rounds=3)
