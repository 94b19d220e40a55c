"""Whole answers: equal, for every family, to one full forward per sequence with the edit's hook."""

from collections.abc import Sequence

import pytest
import torch
from plain import plain_each, plain_logprobs, prompt_of, random_prompts
from tiny_models import tiny_model

from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Prompt
from icl_mech.tasks import load_task

LENGTHS = (9, 12, 5, 9)
N_NEW = 7


def some_edits(model: HookedModel, n_prompts: int) -> list[Edit | list[Edit] | None]:
    """None, replacements and additions at several blocks and tokens, alone and together."""
    generator = torch.Generator().manual_seed(1)

    def value(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, model.d_model, generator=generator)

    last = model.n_layers - 1
    return [
        None,
        Edit(0, value(n_prompts)),
        Edit(2, value()),
        Edit(last, value()),
        Edit(1, value(n_prompts), "attn_out", -1, "add"),
        Edit(1, value(), "resid_post", -3),
        [Edit(0, value(), "resid_pre", -4), Edit(2, value(n_prompts), "mlp_out", -2, "add")],
    ]


def at(prompt: Prompt, edit: Edit | list[Edit] | None) -> Edit | list[Edit] | None:
    """The same edit, its token counted from the prompt's start: more tokens may follow."""
    if edit is None:
        return None
    if isinstance(edit, list):
        return [e for part in edit if isinstance(e := at(prompt, part), Edit)]
    return Edit(
        edit.layer, edit.value, edit.site, prompt.position(edit.position), edit.mode, edit.scale
    )


def plain_next(
    model: HookedModel, prompt: Prompt, said: Sequence[int], edit: object, row: int
) -> torch.Tensor:
    """Log probabilities after prompt and `said`: one full forward, no cache, the edit's hook."""
    return plain_logprobs(model, prompt_of([*prompt.tokens, *said]), at(prompt, edit), row)


def test_sequence_logprob_is_that_of_full_forwards(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    edits = some_edits(tiny, len(prompts))
    generator = torch.Generator().manual_seed(3)
    sizes = [(1, 4, 2), (3,), (5, 1), (2, 2, 6)]
    continuations = [
        [torch.randint(250, (n,), generator=generator).tolist() for n in of] for of in sizes
    ]
    found = tiny.sequence_logprob(prompts, continuations, edits)
    assert found.shape == (len(prompts), len(edits), 3)
    for p, prompt in enumerate(prompts):
        here = [at(prompt, edit) for edit in edits]
        for c, tokens in enumerate(continuations[p]):
            expected = sum(
                plain_each(tiny, prompt_of([*prompt.tokens, *tokens[:i]]), here, p)[:, token]
                for i, token in enumerate(tokens)
            )
            torch.testing.assert_close(found[p, :, c], expected, atol=1e-3, rtol=0)
        assert torch.isnan(found[p, :, len(continuations[p]) :]).all()


def test_generation_is_that_of_full_forwards(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    edits = some_edits(tiny, len(prompts))
    found = tiny.generate(prompts, edits, N_NEW)
    ended = set()
    for p, prompt in enumerate(prompts):
        for e, edit in enumerate(edits):
            tokens = found[p][e].tokens
            for i, token in enumerate(tokens):
                expected = plain_next(tiny, prompt, tokens[:i], edit, p)
                assert expected.max() - expected[token] < 1e-4, (p, e, i)
            text = tiny.tokenizer.decode(tokens)
            assert found[p][e].text == text.partition("\n")[0]
            stopped = "\n" in text
            if not stopped and len(tokens) < N_NEW:
                following = plain_next(tiny, prompt, tokens, edit, p)
                assert int(following.argmax()) == tiny.tokenizer.eos_token_id
            assert found[p][e].cut == (not stopped and len(tokens) == N_NEW)
            ended.add(found[p][e].cut)
    assert True in ended  # a random model hardly ever stops


def test_an_edit_stays_in_place(tiny_llama: HookedModel) -> None:
    """Later tokens see the edited keys and values: not the same as editing the first answer only.

    After the last block there is nobody left to see them.
    """
    (prompt,) = random_prompts(tiny_llama, (8,))
    value = 3 * torch.randn(tiny_llama.d_model, generator=torch.Generator().manual_seed(4))
    answer = [17, 42, 99]
    last = tiny_llama.n_layers - 1
    edits = [None, Edit(0, value), Edit(last, value)]
    whole = tiny_llama.sequence_logprob([prompt], [[answer]], edits)[0, :, 0]
    first = tiny_llama.sequence_logprob([prompt], [[answer[:1]]], edits)[0, :, 0]
    later = whole - first
    assert abs(float(later[1] - later[0])) > 1e-3
    assert float(later[2]) == pytest.approx(float(later[0]), abs=1e-4)


def test_where_generation_stops(tiny_llama: HookedModel) -> None:
    """Whatever the model says third is made the stop, and then its own end of text."""
    (prompt,) = random_prompts(tiny_llama, (6,), seed=5)
    ((free,),) = tiny_llama.generate([prompt], max_new_tokens=N_NEW, stop="\0 never")
    assert free.cut
    assert len(free.tokens) == N_NEW
    third = tiny_llama.tokenizer.decode([free.tokens[2]])
    text = tiny_llama.tokenizer.decode(free.tokens[:3])
    ((stopped,),) = tiny_llama.generate([prompt], max_new_tokens=N_NEW, stop=third)
    assert not stopped.cut
    assert stopped.text == text.partition(third)[0]
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    tokenizer = tiny_llama.tokenizer
    before = tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free.tokens[2])
    try:
        ((ended,),) = tiny_llama.generate([prompt], max_new_tokens=N_NEW, stop="\0 never")
    finally:
        tokenizer.eos_token = before
    first = free.tokens.index(free.tokens[2])
    assert ended.tokens == free.tokens[:first]
    assert not ended.cut


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_small_batches_give_the_same(family: str) -> None:
    """As many rows as fit a budget of few tokens, put back in order; with and without windows."""
    tiny = tiny_model(family)
    small = HookedModel(tiny.bridge, "small", batch_tokens=14)
    prompts = random_prompts(tiny, (10, 4, 7, 4, 13))
    edits = some_edits(tiny, len(prompts))
    answers = [[[5, 6, 7], [8], [9, 10]]] * len(prompts)
    assert [[g.tokens for g in of] for of in small.generate(prompts, edits, 3)] == [
        [g.tokens for g in of] for of in tiny.generate(prompts, edits, 3)
    ]
    torch.testing.assert_close(
        small.sequence_logprob(prompts, answers, edits),
        tiny.sequence_logprob(prompts, answers, edits),
        atol=1e-3,
        rtol=0,
    )


def test_one_token_is_what_evaluate_reads(tiny_llama: HookedModel) -> None:
    prompts = random_prompts(tiny_llama, LENGTHS)
    edits = [e for e in some_edits(tiny_llama, len(prompts)) if e is not None]
    read = tiny_llama.evaluate(prompts, edits, [[3, 7]] * len(prompts))
    whole = tiny_llama.sequence_logprob(prompts, [[[3], [7]]] * len(prompts), edits)
    torch.testing.assert_close(whole, read.logprob, atol=1e-4, rtol=0)
    said = tiny_llama.generate(prompts, edits, 1, stop="\0 never")
    firsts = torch.tensor([[(g.tokens or (read.top[p, e],))[0] for e, g in enumerate(of)]
                           for p, of in enumerate(said)])  # fmt: skip
    assert torch.equal(firsts, read.top)


def test_what_cannot_be_continued(tiny_llama: HookedModel) -> None:
    prompts = random_prompts(tiny_llama, (6, 5))
    with pytest.raises(InputError, match="max_new_tokens is 0; expected at least 1"):
        tiny_llama.generate(prompts, max_new_tokens=0)
    with pytest.raises(InputError, match="the model reads at most 256"):
        tiny_llama.generate(prompts, max_new_tokens=251)
    with pytest.raises(InputError, match="at least one prompt and one edit"):
        tiny_llama.generate(prompts, [])
    with pytest.raises(InputError, match="continuations of 1 prompts for 2"):
        tiny_llama.sequence_logprob(prompts, [[[1]]])
    for nothing in ([], [[]]):
        with pytest.raises(InputError, match="empty continuation"):
            tiny_llama.sequence_logprob(prompts, [[[1]], nothing])


@pytest.mark.slow
def test_packaged_model(gemma: HookedModel) -> None:
    """Theta in place of the arrow, answers of several tokens: as full forwards with a hook."""
    task = load_task("country_capital")
    encoder = gemma.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    shown, (query, dummy) = task.pairs[:4], task.pairs[10:12]
    few = encoder.encode(shown, dummy.x)
    layer = 10
    vector = gemma.final_residuals([[few]])[0, 0, layer]
    prompt = encoder.encode((), query.x)
    theta = Edit(layer, vector, position="final_arrow")
    answer = [*encoder.answer_tokens(prompt, [query.y])[0], *gemma.tokenizer("\nNot")["input_ids"]]
    found = gemma.sequence_logprob([prompt], [[answer]], [None, theta])
    (said,) = gemma.generate([prompt], [None, theta], 3, stop="\0 never")
    for e, edit in enumerate((None, theta)):
        steps = [plain_next(gemma, prompt, answer[:i], edit, 0) for i in range(len(answer))]
        expected = sum(float(step[token]) for step, token in zip(steps, answer, strict=True))
        assert float(found[0, e, 0]) == pytest.approx(expected, abs=2e-3)
        for i, token in enumerate(said[e].tokens):
            following = plain_next(gemma, prompt, said[e].tokens[:i], edit, 0)
            assert following.max() - following[token] < 1e-3
    assert said[0].tokens != said[1].tokens
