"""Sentences with known parts of speech, written from patterns for the tasks of `pos`."""

from functools import cache

import numpy as np

from icl_mech.tasks.builtin import table
from icl_mech.tasks.pos import OTHER, Sentence, askable
from icl_mech.tasks.seeds import generator

#: The number of sentences in the family, and the seed that draws them.
N_SENTENCES = 1200
SENTENCE_SEED = 0

# Words in braces are slots of data/lexicon.tsv, named after one of their words. Other words stay as
# they are ("a" becomes "an" before a vowel). Nearly every tag is first, early and late in some
# pattern, so that the place in a sentence does not give a tag away. Most patterns repeat a tag, so
# that "the first" matters. Every pattern must have all six tags, or its sentences are never kept.
PATTERNS = (
    "{he} {slowly} {carried} the {heavy} {load} {through} the {gloomy} {place}",
    "{he} {looked} {hungry} and {walked} {again} {into} the {place} {with} {them}",
    "{he} {bought} a {very} {fragile} {thing} {from} the {young} {person} {near} the {place}",
    "the {young} {person} {often} {met} {him} {near} the {place}",
    "the {person} {near} the {place} {greeted} {me} {warmly} because {he} {looked} {hungry}",
    "the {person} {quietly} {waited} {beside} {me} and {carefully} {examined} a {old} {thing}",
    "a {young} {person} {waited} {calmly} {beside} {me} while {he} {carefully} {examined} "
    "the {thing}",
    "the {storm} {nearly} {destroyed} {everything} {near} the {gloomy} {place} {after} the {event}",
    "{near} the {gloomy} {place} {he} {carefully} {examined} a {old} {thing}",
    "{during} the {boring} {event} {he} {secretly} {stole} a {old} {thing}",
    "{beside} {me} a {young} {person} {waited} {calmly} {after} the {event}",
    "{near} the {place} a {young} {person} {greeted} {me} {warmly}",
    "{suddenly} the {person} {met} {him} {near} the {gloomy} {place} {after} the {event}",
    "{suddenly} {he} {walked} {slowly} {into} the {place} and {stole} the {old} {thing}",
    "{Carry} the {heavy} {load} {quickly} and {leave} {it} {near} the {place}",
    "{Bring} {it} {quickly} {through} the {place} and {leave} the {heavy} {load} {there}",
    "{young} {people} {often} {met} {him} {near} the {place}",
    "{people} {often} {gave} {me} {old} {things} {after} the {event}",
    "although {he} {looked} {hungry}, the {young} {person} {walked} {again} {into} the {place}",
    "because the {event} {seemed} {dull}, {he} {soon} {left} {near} the {gloomy} {place}",
    "while the {person} {happily} {left} {after} the {event}, {he} {looked} {hungry}",
)


@cache
def lexicon() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The tag and the words of every slot."""
    return {row["slot"][0]: (row["tag"][0], row["words"]) for row in table("lexicon")}


@cache
def own_sentences() -> tuple[Sentence, ...]:
    """`N_SENTENCES` different sentences; patterns are about equally frequent."""
    rng = generator(SENTENCE_SEED, "pos/sentences")
    sentences: list[Sentence] = []
    while len(sentences) < N_SENTENCES:
        more = (_write(PATTERNS[i], rng) for i in rng.permutation(len(PATTERNS)))
        sentences = askable([*sentences, *more])
    return tuple(sentences[:N_SENTENCES])


def _write(pattern: str, rng: np.random.Generator) -> Sentence:
    """A sentence from a pattern, with no word of the lexicon twice."""
    words: list[tuple[str, str]] = []
    text: list[str] = []
    for item in pattern.split():
        slot = item.rstrip(",")
        tag, choices = lexicon()[slot[1:-1]] if slot.startswith("{") else (OTHER, (slot,))
        used = {word for word, its_tag in words if its_tag != OTHER}
        fresh = [choice for choice in choices if choice not in used]
        word = fresh[rng.integers(len(fresh))]
        if text and text[-1].lower() == "a" and word[0] in "aeiou":
            text[-1] += "n"
            words[-1] = (text[-1], OTHER)
        if not words:
            word = word[0].upper() + word[1:]
        words.append((word, tag))
        text.append(word + item[len(slot) :])
    return Sentence(" ".join(text), tuple(words))
