"""Names of the conditions and of the scores."""

from icl_mech.vector_methods.plan import NAMED

#: The conditions without a vector.
REFERENCES = ("few_shot", "zero_shot")
#: The control: a random vector with the norm of the first method's.
RANDOM = "random"
#: How an answer is scored: the most probable of the labels, or the top token among all.
SCORINGS = ("restricted", "open")
#: Conditions in words.
WORDS = {"few_shot": "few-shot", "zero_shot": "zero-shot", RANDOM: "random vector", **NAMED}
