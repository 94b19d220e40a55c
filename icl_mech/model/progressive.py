"""Generation that begins with demonstrations and continues without them.

PICA (arXiv 2503.09958) generates the first tokens of an answer after the demonstrations, and then
drops the demonstrations. All further tokens are generated from the query and the tokens generated
so far. The keys and values of these are computed again without demonstrations, so the
demonstrations act only through the generated tokens and through edits.
"""

from collections.abc import Sequence
from typing import Any

from icl_mech.errors import InputError
from icl_mech.model.edits import Edit
from icl_mech.model.engine import Engine
from icl_mech.model.generation import Generation
from icl_mech.model.knockouts import Knockout
from icl_mech.model.placing import Placer
from icl_mech.progress import Tick
from icl_mech.prompts import Prompt

#: The roles of dropped tokens begin with one of these.
_SHOWN = ("demo_", "instruction")


def without_demonstrations(prompt: Prompt, tokenizer: Any) -> Prompt:
    """The prompt without its demonstrations and instruction: the sink token, query and arrow.

    Args:
        prompt: a prompt whose tokens have roles.
        tokenizer: decodes the text of the remaining tokens.

    Raises:
        InputError: where it has no demonstrations.
    """
    kept = [i for i, role in enumerate(prompt.roles) if not role.startswith(_SHOWN)]
    if len(kept) == len(prompt):
        raise InputError(
            f"the prompt {prompt.text[:60]!r} has no demonstrations to drop; expected one whose "
            "tokens have roles, as Encoder.encode and model.prompt (of a text that follows the "
            "template) make it"
        )
    tokens = tuple(prompt.tokens[i] for i in kept)
    return Prompt(tokenizer.decode(tokens[1:]), tokens, tuple(prompt.roles[i] for i in kept))


def generate_progressively(
    engine: Engine,
    placer: Placer,
    prompts: Sequence[Prompt],
    edits: Sequence[Sequence[Edit | Knockout] | None],
    demonstrations_for: int,
    max_new_tokens: int,
    stop: str,
    tick: Tick,
) -> list[list[Generation]]:
    """Generate the first tokens of each answer with demonstrations, and the others without them.

    The first tokens are generated once per prompt, and shared by all edits.

    Args:
        engine, placer: of the model.
        prompts: with demonstrations.
        edits: in place while the other tokens are generated; their positions are tokens of the
            prompt without demonstrations.
        demonstrations_for: how many tokens are generated with demonstrations.
        max_new_tokens, stop, tick: as in `HookedModel.generate`.

    Returns:
        For each prompt a list of generations, one per edit.
    """
    tokenizer = engine.bridge.tokenizer
    bare = [without_demonstrations(prompt, tokenizer) for prompt in prompts]
    begun = _begun(engine, placer, prompts, min(demonstrations_for, max_new_tokens), stop, tick)
    left = max_new_tokens - demonstrations_for
    going = [i for i, first in enumerate(begun) if first.cut and left > 0]
    found = [[first] * len(edits) for first in begun]
    if not going:
        return found
    branches = [
        placer.branch(
            None if of is None else [e.of_prompts(going) for e in of], [bare[i] for i in going]
        )
        for of in edits
    ]
    tokens = [(*bare[i].tokens, *begun[i].tokens) for i in going]
    rest = engine.generate(tokens, branches, left, stop, tick)
    for i, row in zip(going, rest, strict=True):
        found[i] = [_joined(begun[i], more, tokenizer, stop) for more in row]
    return found


def _begun(
    engine: Engine,
    placer: Placer,
    prompts: Sequence[Prompt],
    n: int,
    stop: str,
    tick: Tick,
) -> list[Generation]:
    """The first `n` tokens of every answer, after the demonstrations."""
    if n == 0:
        return [Generation((), "", cut=True) for _ in prompts]
    tokens = [prompt.tokens for prompt in prompts]
    found = engine.generate(tokens, [placer.branch(None, prompts)], n, stop, tick)
    return [row[0] for row in found]


def _joined(first: Generation, more: Generation, tokenizer: Any, stop: str) -> Generation:
    """Join both parts to one generation; a stop may begin in the first and end in the second."""
    tokens = (*first.tokens, *more.tokens)
    text, stopped, _ = str(tokenizer.decode(tokens)).partition(stop)
    return Generation(tokens, text, more.cut and not stopped)
