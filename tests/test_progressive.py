"""Generation that drops its demonstrations: identities, the measurement, findings, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from plain import plain_logprobs, prompt_of
from test_continuation import at
from tiny_models import answering_bridge, answering_task

from icl_mech import load_model, progressive_generation
from icl_mech.errors import InputError
from icl_mech.model import Edit, Generation, HookedModel
from icl_mech.model.progressive import without_demonstrations
from icl_mech.progressive import ProgressiveGeneration
from icl_mech.prompts import Encoder, Prompt, in_context, zero_shot
from icl_mech.tasks import Episode, Pair

SMALL: dict[str, Any] = {
    "n_sets": 2,
    "n_steps": 2,
    "batch_size": 2,
    "timed_tokens": 2,
    "n_rounds": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


def few_shot(model: HookedModel) -> tuple[Encoder, list[Episode], list[Prompt]]:
    pairs = [Pair(x, (x.upper() * n,)) for x, n in zip("abcdef", (1, 2, 3, 1, 2, 3), strict=True)]
    episodes = [Episode(tuple(pairs[i : i + 2]), pairs[i + 2], (), (), "Go.") for i in range(3)]
    encoder = model.encoder("{x}->{y}", [pair.y for pair in pairs])
    return encoder, episodes, in_context(encoder, episodes)


def edits_of(model: HookedModel, n_prompts: int) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(n_prompts, model.d_model, generator=generator)
    return [
        None,
        Edit(1, values, position="final_arrow"),
        [Edit(0, values[0], "attn_out", "query", "add"), Edit(2, values, "resid_post", -1)],
    ]


# --- model.generate(..., demonstrations_for=k) ------------------------------------------------


def test_no_token_and_all_tokens_are_the_two_prompts(tiny: HookedModel) -> None:
    """k = 0 is the zero-shot prompt with the edits; a k beyond the end is the few-shot prompt."""
    encoder, episodes, few = few_shot(tiny)
    edits = edits_of(tiny, len(few))
    bare = [without_demonstrations(prompt, tiny.tokenizer) for prompt in few]
    zero = zero_shot(encoder, episodes)
    assert [p.tokens[1:] for p in bare] == [p.tokens[1:] for p in zero]
    assert [p.roles for p in bare] == [p.roles for p in zero]
    assert tiny.generate(few, edits, 5, demonstrations_for=0) == tiny.generate(bare, edits, 5)
    whole = [row * len(edits) for row in tiny.generate(few, [None], 5)]
    assert tiny.generate(few, edits, 5, demonstrations_for=9) == whole


@pytest.mark.parametrize("k", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 4))])
def test_tokens_are_those_of_full_forwards(tiny: HookedModel, k: int) -> None:
    """The first k after the whole prompt, each next one after query and tokens with the edits."""
    _, _, few = few_shot(tiny)
    edits = edits_of(tiny, len(few))
    found = tiny.generate(few, edits, 6, demonstrations_for=k)
    for p, prompt in enumerate(few):
        bare = without_demonstrations(prompt, tiny.tokenizer)
        for e, edit in enumerate(edits):
            tokens = found[p][e].tokens
            for i, token in enumerate(tokens):
                if i < k:
                    logprob = plain_logprobs(tiny, prompt_of([*prompt.tokens, *tokens[:i]]), None)
                else:
                    whole = prompt_of([*bare.tokens, *tokens[:i]])
                    logprob = plain_logprobs(tiny, whole, at(bare, edit), p)
                assert logprob.max() - logprob[token] < 1e-4, (p, e, i)
            assert found[p][e].text == tiny.tokenizer.decode(tokens).partition("\n")[0]
    plain = tiny.with_engine("plain").generate(few, edits, 6, demonstrations_for=k)
    assert [[g.tokens for g in row] for row in plain] == [[g.tokens for g in row] for row in found]


def test_a_stop_may_begin_before_demonstrations_are_dropped(
    tiny_llama: HookedModel,
) -> None:
    """And an answer that ends before is left as it is."""
    _, _, few = few_shot(tiny_llama)
    usual: list[Generation] = [row[0] for row in tiny_llama.generate(few, [None], 5)]
    said = tiny_llama.tokenizer.decode(usual[0].tokens)
    ended = tiny_llama.generate(few[:1], [None], 5, said[0], demonstrations_for=3)[0][0]
    assert (ended.text, ended.cut) == ("", False)
    across = tiny_llama.generate(few[:1], [None], 5, demonstrations_for=1)[0][0]
    text = tiny_llama.tokenizer.decode(across.tokens)
    stopped = tiny_llama.generate(few[:1], [None], 5, text[:2], demonstrations_for=1)[0][0]
    assert (stopped.text, stopped.cut) == ("", False)


def test_what_generate_refuses(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="the prompt 'ab' has no demonstrations to drop"):
        tiny_llama.generate("ab", demonstrations_for=1)
    text = "a->A\nb->"
    with pytest.raises(InputError, match="demonstrations_for is -1; expected 0 or more"):
        tiny_llama.generate(text, demonstrations_for=-1)
    assert tiny_llama.generate(text, max_new_tokens=2, demonstrations_for=1).tokens


# --- the measurement --------------------------------------------------------------------------


def test_the_measurement_is_what_generate_and_distances_say(answering: HookedModel) -> None:
    found = progressive_generation(
        answering, answering_task(), 4, 2, first_tokens=[0, 1], n_positions=3, **SMALL
    )
    here = found.of("q")
    assert found.kept == ["nothing", "states", "theta", "learned"]
    # Every answer is "Qx" and a line break: three tokens of bytes, with a space before.
    assert found.positions("q") == [0, 1, 2]
    task = answering_task()
    encoder = answering.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    queries = found.queries("q").tolist()
    texts = here["text"].sel(kept="nothing", first_tokens=0).values
    for x, text in zip(queries, texts, strict=True):
        bare = encoder.encode((), x)
        n_new = len(encoder.answer_tokens(bare, ["Qx"])[0]) + 2
        assert text == answering.generate(bare, max_new_tokens=n_new).text
    assert (here["kl"].values >= -1e-6).all()
    assert (here["total_variation"].values <= 1).all()
    assert (here["timed"].values <= 4 * 2).all()
    assert found.speed("q").value > 0
    assert found.full_summary().shape[0] == 4
    # With as many states as blocks the number is as it was asked for.
    three = progressive_generation(
        answering, answering_task(), 4, 2, first_tokens=[0], methods=[], n_blocks=3, **SMALL
    )
    assert float(three.of("q")["layer"].sel(kept="states")) == 2


def made(kl: tuple[float, ...], right: tuple[int, ...], few: int, n: int = 40) -> Any:
    """Divergences by position, and how many answers are right with 0, 1, ... first tokens."""
    noise = np.random.default_rng(0).normal(0, 0.1, n)
    values = np.array(kl)[None, :, None] + noise
    accepted = np.stack([np.arange(n) < k for k in right])[None]
    data = xr.Dataset(
        {
            "kl": (("kept", "position", "prompt"), values),
            "total_variation": (("kept", "position", "prompt"), values / 9),
            "accepted": (("kept", "first_tokens", "prompt"), accepted),
            "begins": (("kept", "first_tokens", "prompt"), np.ones_like(accepted)),
            "few_accepted": ("prompt", np.arange(n) < few),
            "few_begins": ("prompt", np.ones(n, bool)),
            "seconds": (("first_tokens", "round"), np.ones((len(right), 3))),
            "timed": (("first_tokens", "round"), np.array([[8, 9, 30]] * len(right))),
            "few_seconds": ("round", np.ones(3)),
            "few_timed": ("round", np.array([4, 5, 6])),
            "layer": ("kept", [np.nan]),
            "query": ("prompt", [f"x{i}" for i in range(n)]),
            "n_queries": ((), n),
        },
        {
            "kept": ["nothing"],
            "position": range(len(kl)),
            "first_tokens": range(len(right)),
        },
    )
    said = {"model": "m", "seed": 0, "n_shots": 5, "tasks": {"t": {"notes": {}}}}
    return ProgressiveGeneration(data.expand_dims(task=["t"]), said)


def test_findings_and_numbers() -> None:
    result = made((3.0, 0.5), (0, 30), 36)
    assert result.finding() == (
        "The first answer token needs the demonstrations most (KL 3.0 nats, then 0.5); dropped "
        "after 1 token, 75% of answers are right, else 90%"
    )
    assert result.ends("t", 1).value == 0.75
    assert result.lost("t", 1).value == pytest.approx(0.15)
    assert str(result.speed("t", 0)) == "9.00 [8.00, 30.00]"
    assert result.speed("t").value == 5
    flat = made((1.0, 1.0), (0, 30), 36)
    assert flat.finding().startswith("The first answer token is not shown to need")
    both = xr.concat([result.data, flat.data], dim="task").assign_coords(task=["t", "u"])
    two = ProgressiveGeneration(both, result.provenance)
    assert two.finding().startswith("In 1 of 2 tasks the first answer token is shown to need")
    with pytest.raises(InputError, match="first_tokens 7 was not run; expected one of 0, 1"):
        result.accuracy("t", 7)


def test_what_is_refused(answering: HookedModel) -> None:
    with pytest.raises(InputError, match=r"first_tokens \[-1, 0\]; expected at least one"):
        progressive_generation(answering, "to_upper", first_tokens=[0, -1])
    with pytest.raises(InputError, match="n_blocks is 9; expected 1 to 4, the blocks of"):
        progressive_generation(answering, "to_upper", 4, 2, n_blocks=9)
    with pytest.raises(InputError, match="unknown method 'theta_'"):
        progressive_generation(answering, "to_upper", methods="theta_")
