"""Scores a generated text against the answers that a task accepts."""

import re
from collections.abc import Sequence

#: How an answer is judged, from the most lenient to the strictest. `two_way_prefix`: the top
#: token's text begins an accepted answer, or the other way round (as the authors score knowledge
#: tasks). `first_token`: the top token is the first token of an accepted answer.
#: `most_probable`: an accepted answer, as a whole, is more probable than a sample of the task's
#: other answers. `begins`: the generated text begins with an accepted answer, up to the end of a
#: word. `accepted`: the generated text is an accepted answer. `strict`: it is the one that
#: demonstrations show.
SCORES = ("two_way_prefix", "first_token", "most_probable", "begins", "accepted", "strict")
#: The score that the others are compared with.
USUAL = "first_token"


def judge_text(said: str, answers: Sequence[str]) -> dict[str, bool]:
    """The scores of a generated text; demonstrations show the first of `answers`.

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
