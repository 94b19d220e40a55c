"""Words that name a task, by hand: what a vector's top tokens would be if they named it.

In English, German, French and Spanish, the same kinds of words for every task: vocabularies are
multilingual. A word is compared with a token's text without the space before it and without
regard to case. No word here is an answer or an input of its task.
"""

from collections.abc import Mapping, Sequence

from icl_mech.errors import InputError

_LETTER = (
    "letter letters alphabet alphabetical alphabetically character characters"
    " buchstabe buchstaben lettre lettres letra letras alfabeto"
)
_LIST = "list lists element elements item items sequence array liste lista"
_CASE = "case casing"
_ENGLISH = "english englisch anglais inglés"
_FRENCH = "french französisch français francés"
_SPANISH = "spanish spanisch espagnol español"
_TRANSLATE = (
    "translate translates translated translation translations translator translators translating"
    " dictionary language languages übersetzung übersetzen übersetzt wörterbuch sprache traduction"
    " traduire dictionnaire langue traducción traducir diccionario idioma"
)
_VERB = (
    "verb verbs tense tenses conjugation conjugate grammar grammatical grammatik grammaire"
    " gramática verbe verbes verbo verbos"
)

NAMING: dict[str, tuple[str, ...]] = {
    task: tuple(words.split())
    for task, words in {
        "next_letter": (
            "next following after successor succeeding increment forward nächste nächster nach"
            f" suivant suivante après siguiente después {_LETTER}"
        ),
        "previous_letter": (
            "previous prior preceding before predecessor decrement backward vorherige vorher vor"
            f" précédent précédente avant anterior antes {_LETTER}"
        ),
        "list_first": (
            "first start beginning initial head leading erste erster erstes anfang premier"
            f" première début primero primera inicio {_LIST}"
        ),
        "list_last": (
            "last end ending final tail trailing letzte letzter letztes ende dernier dernière fin"
            f" último última {_LIST}"
        ),
        "to_upper": (
            "upper uppercase capital capitals capitalize capitalized capitalization toupper"
            f" großbuchstaben majuscule majuscules mayúscula mayúsculas {_CASE} {_LETTER}"
        ),
        "to_lower": (
            "lower lowercase small tolower kleinbuchstaben minuscule minuscules minúscula"
            f" minúsculas {_CASE} {_LETTER}"
        ),
        "fr_en": f"{_ENGLISH} {_FRENCH} {_TRANSLATE}",
        "en_fr": f"{_ENGLISH} {_FRENCH} {_TRANSLATE}",
        "es_en": f"{_ENGLISH} {_SPANISH} {_TRANSLATE}",
        "en_es": f"{_ENGLISH} {_SPANISH} {_TRANSLATE}",
        "present_gerund": (
            "gerund gerunds participle participles continuous progressive present ing gerundium"
            f" partizip gérondif participe gerundio participio {_VERB}"
        ),
        "present_past": (
            "past preterite participle participles vergangenheit präteritum partizip passé"
            f" participe pasado pretérito participio {_VERB}"
        ),
        "plural_singular": (
            "singular singulars plural plurals noun nouns grammar grammatical einzahl mehrzahl"
            " substantiv singulier pluriel nom sustantivo"
        ),
        "antonyms": (
            "opposite opposites antonym antonyms opposing contrary contrast contrasts reverse"
            " converse versus gegenteil umgekehrt gegensatz contraire opposé inverse opuesto"
            " contrario inverso antónimo"
        ),
        "country_capital": (
            "capital capitals city cities metropolis hauptstadt hauptstädte stadt städte capitale"
            " capitales ville villes ciudad ciudades"
        ),
        "person_language": (
            "language languages linguistic tongue tongues native nationality speaks spoken speaker"
            " sprache sprachen muttersprache langue langues idioma idiomas lengua lenguas"
        ),
        "location_continent": (
            "continent continents continental kontinent kontinente erdteil continente continentes"
        ),
        "location_religion": (
            "religion religions religious faith faiths belief beliefs worship glaube glauben"
            " religiös religieux foi croyance religión religiones religioso fe creencia"
        ),
    }.items()
}


def naming_words(more: Mapping[str, Sequence[str]] | None = None) -> dict[str, frozenset[str]]:
    """The words that name each task, in lower case, with a user's own.

    Raises:
        InputError: where a task has text in place of a list of words.
    """
    for task, of in (more or {}).items():
        if isinstance(of, str):
            raise InputError(
                f"naming[{task!r}] is the text {of!r}; expected a list of words: {of.split()}"
            )
    words = {**NAMING, **(more or {})}
    return {task: frozenset(word.strip().casefold() for word in of) for task, of in words.items()}
