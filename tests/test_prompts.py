"""Text, tokens and roles of prompts, for every kind of tokenizer."""

from collections.abc import Sequence

import pytest
from tiny_tokenizers import (
    ADDS_SPACE,
    BOS,
    END,
    NAMES,
    RARE,
    TRAINED,
    WORDS,
    byte_level,
    tiny_tokenizer,
)
from tokenizers import processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from icl_mech.errors import InputError, ModelError
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    Encoder,
    Prompt,
    Span,
    Template,
    choose_sink,
    wants_leading_space,
)
from icl_mech.tasks import Pair, list_tasks, load_task

#: Those whose offsets leave nothing out.
EXACT = [name for name in NAMES if name != "trimmed"]
DEMOS = (Pair("cat", ("chat",)), Pair("zebrafish", ("naïveté", "chat")), Pair("hot", ("cold",)))
QUESTION = "Q: {x}\nA: {y}"


def encoder(name: str, template: str = DEFAULT_TEMPLATE, leading_space: bool = True) -> Encoder:
    return Encoder(tiny_tokenizer(name), Template(template, leading_space=leading_space))


def offsets(name: str, prompt: Prompt) -> list[tuple[int, int]]:
    """Where every token but the sink stands in the prompt's text."""
    encoded = tiny_tokenizer(name)(
        prompt.text, add_special_tokens=False, return_offsets_mapping=True
    )
    assert tuple(encoded["input_ids"]) == prompt.tokens[1:]
    return encoded["offset_mapping"]


def role_texts(name: str, prompt: Prompt) -> dict[str, str]:
    """The text that the tokens of each role cover, in order."""
    stretches: dict[str, list[int]] = {}
    for role, (begin, end) in zip(prompt.roles[1:], offsets(name, prompt), strict=True):
        stretch = stretches.setdefault(role, [begin, end])
        assert stretch[0] <= begin <= stretch[1] <= end or stretch == [begin, end], role
        stretch[1] = end
    return {role: prompt.text[begin:end] for role, (begin, end) in stretches.items()}


def joined(spans: Sequence[Span]) -> str:
    return "".join(span.text for span in spans)


# --- Template -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "->",
        "{x}->",
        "->{y}",
        "{y}->{x}",
        "{x}->{y}{y}",
        "{x} {x}->{y}",
        "{x}->{y} {x}",
        "{x}{y}",
        "{{x}->y}",
        "{X}->{Y}",
    ],
)
@pytest.mark.parametrize("leading_space", [True, False])
def test_template_needs_x_then_text_then_y(text: str, leading_space: bool) -> None:
    with pytest.raises(InputError, match=r"expected \{x\}, then some text, then \{y\}, each once"):
        Template(text, leading_space=leading_space)


@pytest.mark.parametrize(
    ("template", "few_shot", "zero_shot"),
    [
        (Template(), " a-> b\n c-> d\n e->", " e->"),
        (Template(leading_space=False), "a->b\nc->d\ne->", "e->"),
        (Template("{x} -> {y}"), " a -> b\n c -> d\n e ->", " e ->"),
        (
            Template("{x} -> {y}", leading_space=False),
            "a -> b\nc -> d\ne -> ",
            "e -> ",
        ),
        (Template(QUESTION), "Q: a\nA: b\nQ: c\nA: d\nQ: e\nA:", "Q: e\nA:"),
        (Template("[{x}={y}]", separator=""), "[ a= b][ c= d][ e=", "[ e="),
        (Template("{x}:{y}.", separator=" ;"), " a: b. ; c: d. ; e:", " e:"),
    ],
)
def test_rendered_text(template: Template, few_shot: str, zero_shot: str) -> None:
    demonstrations = (Pair("a", ("b", "B")), Pair("c", ("d",)))
    assert joined(template.render(demonstrations, "e")) == few_shot
    assert joined(template.render((), "e")) == zero_shot


def test_rendered_roles() -> None:
    spans = Template("Q{x}={y}.").render((Pair("a", ("b",)), Pair("c", ("d",))), "e")
    assert [(span.text, span.role) for span in spans] == [
        ("Q", "demo_0_start"),
        (" a", "demo_0_x"),
        ("=", "demo_0_arrow"),
        (" b", "demo_0_y"),
        (".\n", "demo_0_end"),
        ("Q", "demo_1_start"),
        (" c", "demo_1_x"),
        ("=", "demo_1_arrow"),
        (" d", "demo_1_y"),
        (".\n", "demo_1_end"),
        ("Q", "query_start"),
        (" e", "query"),
        ("=", "final_arrow"),
    ]


def test_words_that_look_like_fields_stay_words() -> None:
    spans = Template().render((Pair("{y}", ("{x}",)),), "{x}->{y}")
    assert joined(spans) == " {y}-> {x}\n {x}->{y}->"


# --- text and roles of encoded prompts ------------------------------------------------------


@pytest.mark.parametrize("template", [DEFAULT_TEMPLATE, "{x} -> {y}", QUESTION, "({x}: {y})"])
@pytest.mark.parametrize("name", EXACT)
def test_roles_cover_what_the_template_wrote(name: str, template: str) -> None:
    made = encoder(name, template)
    for query in (*WORDS, *RARE):
        prompt = made.encode(DEMOS, query)
        spans = made.template.render(DEMOS, query)
        assert prompt.text in (joined(spans), joined(spans).removeprefix(" "))
        covered = role_texts(name, prompt)
        assert list(covered) == [span.role for span in spans]
        assert [text.removeprefix(" ") for text in covered.values()] == [
            span.text.removeprefix(" ") for span in spans
        ]
        inside = spans[1:]  # a tokenizer may write the first space by itself
        assert [covered[span.role] for span in inside] == [span.text for span in inside]


@pytest.mark.parametrize("name", EXACT)
def test_roles_without_leading_space(name: str) -> None:
    made = encoder(name, leading_space=False)
    for query in (*WORDS, *RARE):
        prompt = made.encode(DEMOS, query)
        spans = made.template.render(DEMOS, query)
        assert prompt.text == joined(spans)
        assert role_texts(name, prompt) == {span.role: span.text for span in spans}


@pytest.mark.parametrize(
    ("template", "leading_space"),
    [
        (DEFAULT_TEMPLATE, True),
        (DEFAULT_TEMPLATE, False),
        (QUESTION, True),
        ("{x} -> {y}", True),
        ("{x} -> {y}", False),
        ("{x}  =  {y}", True),
    ],
)
def test_trimmed_offsets_change_nothing(template: str, leading_space: bool) -> None:
    plain, trimmed = (encoder(name, template, leading_space) for name in ("gpt2", "trimmed"))
    for query in (*WORDS, *RARE):
        for demonstrations in (DEMOS, ()):
            assert trimmed.encode(demonstrations, query) == plain.encode(demonstrations, query)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("task", list_tasks())
def test_every_builtin_task_can_be_written(task: str, name: str) -> None:
    pairs = load_task(task).pairs
    made = encoder(name)
    for i in range(0, min(len(pairs), 60) - 4, 6):
        demonstrations, query = pairs[i : i + 4], pairs[i + 4].x
        prompt = made.encode(demonstrations, query)
        texts = role_texts(name, prompt)
        assert texts["final_arrow"] == "->"
        assert texts["query"].strip() == query
        if all(pair.y[-1].isalnum() for pair in demonstrations):
            ys = [texts[f"demo_{k}_y"].strip() for k in range(4)]
            assert ys == [pair.y for pair in demonstrations]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_word_has_one_space_before_it(name: str) -> None:
    prompt = encoder(name).encode((), "cat")
    assert prompt.text == ("cat->" if name in ADDS_SPACE else " cat->")


@pytest.mark.parametrize("name", TRAINED)
def test_first_word_takes_the_tokens_that_it_takes_inside(name: str) -> None:
    prompt = encoder(name).encode((Pair("cat", ("cat",)),), "cat")
    first, inside, last = (
        [t for t, role in zip(prompt.tokens, prompt.roles, strict=True) if role == wanted]
        for wanted in ("demo_0_x", "demo_0_y", "query")
    )
    assert first == inside == last
    assert len(first) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("leading_space", [True, False])
def test_first_token_is_the_sink_and_the_last_the_arrow(name: str, leading_space: bool) -> None:
    made = encoder(name, leading_space=leading_space)
    for demonstrations in (DEMOS, ()):
        prompt = made.encode(demonstrations, "zebrafish")
        assert prompt.tokens[0] == choose_sink(tiny_tokenizer(name)).token
        assert prompt.roles[0] == "sink"
        assert prompt.roles.count("sink") == prompt.tokens.count(prompt.tokens[0]) == 1
        assert prompt.roles[-1] == "final_arrow"
        assert len(prompt) == len(prompt.tokens) == len(prompt.roles)


@pytest.mark.parametrize("name", TRAINED)
def test_question_puts_the_space_into_the_word(name: str) -> None:
    tokenizer = tiny_tokenizer(name)
    made = encoder(name, QUESTION)
    prompt = made.encode((Pair("cat", ("chat",)),), "dog")
    assert prompt.text == "Q: cat\nA: chat\nQ: dog\nA:"
    word, arrow = prompt.position("demo_0_y"), prompt.position("final_arrow")
    assert tokenizer.convert_ids_to_tokens(prompt.tokens[word])[1:] == "chat"
    assert tokenizer.convert_ids_to_tokens(prompt.tokens[arrow]) == ":"
    ((answer,),) = made.answer_tokens(prompt, ["chien"])
    assert tokenizer.convert_ids_to_tokens(answer)[1:] == "chien"


def test_gpt2_prompt_token_by_token() -> None:
    prompt = encoder("gpt2").encode((Pair("cat", ("chat",)),), "dog")
    tokens = tiny_tokenizer("gpt2").convert_ids_to_tokens(list(prompt.tokens))
    assert list(zip(tokens, prompt.roles, strict=True)) == [
        (END, "sink"),
        ("Ġcat", "demo_0_x"),
        ("->", "demo_0_arrow"),
        ("Ġchat", "demo_0_y"),
        ("Ċ", "demo_0_end"),
        ("Ġdog", "query"),
        ("->", "final_arrow"),
    ]


def test_metaspace_prompt_token_by_token() -> None:
    prompt = encoder("metaspace").encode((Pair("cat", ("chat",)),), "dog")
    tokens = tiny_tokenizer("metaspace").convert_ids_to_tokens(list(prompt.tokens))
    assert list(zip(tokens, prompt.roles, strict=True)) == [
        (BOS, "sink"),
        ("▁cat", "demo_0_x"),
        ("->", "demo_0_arrow"),
        ("▁chat", "demo_0_y"),
        ("<0x0A>", "demo_0_end"),
        ("▁dog", "query"),
        ("->", "final_arrow"),
    ]


@pytest.mark.parametrize("text", ["{x} {y}", "{x}  {y}"])
def test_an_arrow_of_spaces_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="then some text, then"):
        Template(text)


def test_an_arrow_of_letters_that_merges_is_an_error() -> None:
    with pytest.raises(InputError, match="this tokenizer merges 'a' with"):
        encoder("gpt2", "{x}a{y}", leading_space=False).encode((Pair("c", ("t",)),), "cold")


def test_slow_tokenizer_is_an_error() -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer does not report the offsets"):
        Encoder(ByT5Tokenizer(), Template())


# --- Prompt.position ------------------------------------------------------------------------

PROMPT = Prompt(" a b->", (9, 1, 2, 3, 4), ("sink", "query", "query", "final_arrow", "final_arrow"))


@pytest.mark.parametrize(
    ("role", "at"),
    [
        ("sink", 0),
        ("query", 2),
        ("final_arrow", 4),
        (0, 0),
        (4, 4),
        (-1, 4),
        (-5, 0),
    ],
)
def test_position(role: str | int, at: int) -> None:
    assert PROMPT.position(role) == at


@pytest.mark.parametrize("index", [5, -6, 100])
def test_position_out_of_range(index: int) -> None:
    with pytest.raises(InputError, match=f"token {index} out of range for a prompt of 5 tokens"):
        PROMPT.position(index)


def test_position_of_an_unknown_role_lists_the_roles() -> None:
    with pytest.raises(InputError, match=r"no role 'demo_0_x'. It has: sink, query, final_arrow$"):
        PROMPT.position("demo_0_x")


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_a_prompt_follow_one_another(name: str) -> None:
    prompt = encoder(name).encode(DEMOS, "dog")
    roles = list(dict.fromkeys(prompt.roles))
    at = [prompt.position(role) for role in roles]
    assert at == sorted(at)
    assert prompt.position("final_arrow") == prompt.position(-1) == len(prompt) - 1
    assert prompt.position("sink") == 0


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "leading_space"),
    [(DEFAULT_TEMPLATE, True), (DEFAULT_TEMPLATE, False), (QUESTION, True)],
)
@pytest.mark.parametrize("name", NAMES)
def test_answer_continues_the_prompt(name: str, template: str, leading_space: bool) -> None:
    tokenizer, made = tiny_tokenizer(name), encoder(name, template, leading_space)
    for demonstrations in (DEMOS, ()):
        prompt = made.encode(demonstrations, "dog")
        answers = (*WORDS, *RARE)
        for answer, tokens in zip(answers, made.answer_tokens(prompt, answers), strict=True):
            whole = tokenizer(prompt.text + made.template.word(answer), add_special_tokens=False)
            assert prompt.tokens[1:] + tokens == tuple(whole["input_ids"])


@pytest.mark.parametrize("leading_space", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_answer_takes_the_tokens_that_a_demonstration_shows(name: str, leading_space: bool) -> None:
    made = encoder(name, leading_space=leading_space)
    prompt = made.encode(DEMOS, "dog")
    answers = (*WORDS, *RARE)
    for answer, tokens in zip(answers, made.answer_tokens(prompt, answers), strict=True):
        shown = made.encode((*DEMOS, Pair("dog", (answer,))), "cat")
        at = [i for i, role in enumerate(shown.roles) if role == "demo_3_y"]
        assert tuple(shown.tokens[i] for i in at) == tokens
        assert shown.tokens[: at[0]] == prompt.tokens


@pytest.mark.parametrize("name", TRAINED)
def test_known_words_are_one_token_and_rare_ones_several(name: str) -> None:
    made = encoder(name)
    prompt = made.encode((), "dog")
    assert {len(tokens) for tokens in made.answer_tokens(prompt, WORDS)} == {1}
    assert min(len(tokens) for tokens in made.answer_tokens(prompt, RARE)) > 1


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_answer_that_would_merge_with_the_arrow_stands_alone(name: str) -> None:
    made = encoder(name, "{x} -> {y}", leading_space=False)
    prompt = made.encode((), "dog")
    assert prompt.text.endswith("-> ")
    alone = tiny_tokenizer(name)("chat", add_special_tokens=False)["input_ids"]
    assert made.answer_tokens(prompt, ["chat"]) == (tuple(alone),)


def test_no_answers_have_no_tokens() -> None:
    made = encoder("gpt2")
    assert made.answer_tokens(made.encode((), "dog"), []) == ()


def test_answer_without_tokens_is_an_error() -> None:
    made = encoder("gpt2", leading_space=False)
    prompt = made.encode((), "dog")
    with pytest.raises(InputError, match="'' gives no tokens; expected a word"):
        made.answer_tokens(prompt, [""])
    with pytest.raises(InputError, match="'' gives no tokens; expected a word"):
        made.rivals(prompt, ["chat"], ["cat", ""])


# --- sink and leading space -----------------------------------------------------------------


def that_prepends(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, told to put its BOS before every text."""
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A", special_tokens=[bos]
    )
    return tokenizer


CHAT = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": END}


@pytest.mark.parametrize(
    ("specials", "sink", "rival"),
    [
        ({"bos_token": "<b>", "eos_token": END}, END, "<b>"),
        (CHAT, END, "<|im_start|>"),  # as SmolLM2's instruct models have it
        ({"bos_token": "<b>", "eos_token": "<e>"}, "<e>", "<b>"),
        ({"bos_token": "<b>", "pad_token": "<p>"}, "<b>", None),
        ({"bos_token": END, "eos_token": END}, END, None),  # as GPT-2 and Pythia have it
        ({"eos_token": END}, END, None),
        ({"eos_token": "<e>", "pad_token": END}, END, None),  # as Qwen2 has it
        ({"eos_token": "<e>", "pad_token": "<|end_of_text|>"}, "<|end_of_text|>", None),
        ({"eos_token": "<e>", "pad_token": "<p>"}, "<e>", None),
    ],
)
def test_a_bos_that_is_not_prepended_is_no_sink(
    specials: dict[str, str], sink: str, rival: str | None
) -> None:
    tokenizer = byte_level(**specials)
    chosen = choose_sink(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chosen.token) == sink
    assert rival == (None if chosen.rival is None else tokenizer.decode([chosen.rival]))


def test_a_bos_that_the_tokenizer_prepends_is_the_sink() -> None:
    tokenizer = that_prepends(byte_level(**CHAT))
    chosen = choose_sink(tokenizer)
    assert tokenizer.decode([chosen.token]) == "<|im_start|>"
    assert chosen.rival is None


def test_a_sink_of_the_callers_own() -> None:
    tokenizer = byte_level(**CHAT)
    asked = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for wanted in ("<|im_start|>", asked):
        assert choose_sink(tokenizer, wanted).token == asked
        assert choose_sink(tokenizer, wanted).reason == "chosen by the caller"
    with pytest.raises(InputError, match=r"'<\|im_star\|>' is no token.*did you mean '<\|im_start"):
        choose_sink(tokenizer, "<|im_star|>")
    for absent in (10**9, -1, True):
        with pytest.raises(InputError, match="no token of this tokenizer; expected a token's text"):
            choose_sink(tokenizer, absent)


def test_a_token_that_the_model_has_no_embedding_for_is_named() -> None:
    tokenizer = tiny_tokenizer("gpt2")
    (last,) = tokenizer(" zebrafish")["input_ids"][-1:]
    Encoder(tokenizer, Template()).encode([], "zebrafish")
    made = Encoder(tokenizer, Template(), n_tokens=last)
    with pytest.raises(InputError, match=rf"is token \d+, and the model has embeddings for {last}"):
        made.encode([], "zebrafish")


def test_a_tokenizer_without_any_such_token_is_an_error() -> None:
    with pytest.raises(ModelError, match="no BOS and no end-of-text token"):
        Encoder(byte_level(pad_token="<p>"), Template())


@pytest.mark.parametrize("name", TRAINED)
def test_words_known_with_a_space_want_it(name: str) -> None:
    assert wants_leading_space(tiny_tokenizer(name), WORDS)
    assert wants_leading_space(tiny_tokenizer(name), ["Paris"])


@pytest.mark.parametrize(
    ("name", "words"),
    [("bytes_only", WORDS), ("gpt2", ["zebrafish"]), ("metaspace", ["zebrafish", "東京"])],
)
def test_words_that_a_space_makes_longer_do_not_want_it(name: str, words: Sequence[str]) -> None:
    assert not wants_leading_space(tiny_tokenizer(name), words)


def test_the_words_decide_together() -> None:
    tokenizer = tiny_tokenizer("gpt2")
    assert wants_leading_space(tokenizer, ["zebrafish", "Paris"])
    assert not wants_leading_space(tokenizer, ["zebrafish", "zebrafish", "dog"])
