"""Was the whole answer right? Generated text against the answers that a task accepts."""

import re
from collections.abc import Sequence

#: How an answer is judged, from the most lenient to the strictest. `two_way_prefix`: the top
#: token's text begins an accepted answer, or the other way round (the authors' own, on knowledge
#: tasks). `first_token`: the top token is the first token of an accepted answer.
#: `most_probable`: an accepted answer, as a whole, is more probable than a sample of the task's
#: other answers. `begins`: the generated text begins with an accepted answer, up to the end of a
#: word. `accepted`: the generated text is an accepted answer. `strict`: it is the one that
#: demonstrations show.
SCORES = ("two_way_prefix", "first_token", "most_probable", "begins", "accepted", "strict")
#: The one that the others are compared with.
USUAL = "first_token"
#: Those by which a layer can be chosen, and which are reported at every layer that works.
BY = ("first_token", "begins", "accepted", "strict")


def judge_text(said: str, answers: Sequence[str]) -> dict[str, bool]:
    """The scores that come of a generated text; the first of `answers` is the one shown.

    >>> judge_text(" Paris, I think", ["Paris"])
    {'begins': True, 'accepted': False, 'strict': False}
    >>> judge_text("Parisian", ["Paris"])["begins"]
    False
    """
    said = said.strip()
    return {
        "begins": any(re.match(re.escape(a) + r"(?![^\W_])", said) for a in answers),
        "accepted": said in answers,
        "strict": said == answers[0],
    }
