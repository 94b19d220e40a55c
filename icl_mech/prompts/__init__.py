"""Prompts from pairs: text, token ids, and the role of every token. Knows no models."""

from icl_mech.prompts.asking import (
    Answers,
    accepted,
    few_shot,
    in_context,
    instruction_only,
    with_dummies,
    zero_shot,
)
from icl_mech.prompts.encode import Encoder, Prompt, wants_leading_space
from icl_mech.prompts.held_out import HELD_OUT_SHARE, HeldOut, hold_out
from icl_mech.prompts.instructions import CONDITIONS, header, instructed
from icl_mech.prompts.matched import Matched, draw_matched, same_inputs
from icl_mech.prompts.pool import Pool, load_pool
from icl_mech.prompts.sampling import (
    Episode,
    Split,
    check_counts,
    cut,
    draw_context_split,
    draw_episodes,
    draw_split,
    shuffle_labels,
)
from icl_mech.prompts.settings import (
    N_DUMMIES,
    PromptSettings,
    VectorSettings,
    check_shots,
    half,
    shot_counts,
    shuffled,
)
from icl_mech.prompts.sink import Sink, choose_sink
from icl_mech.prompts.template import DEFAULT_TEMPLATE, Span, Template
from icl_mech.tasks.seeds import check_seed, count, generator, whole, whole_numbers

__all__ = [
    "CONDITIONS",
    "DEFAULT_TEMPLATE",
    "HELD_OUT_SHARE",
    "N_DUMMIES",
    "Answers",
    "Encoder",
    "Episode",
    "HeldOut",
    "Matched",
    "Pool",
    "Prompt",
    "PromptSettings",
    "Sink",
    "Span",
    "Split",
    "Template",
    "VectorSettings",
    "accepted",
    "check_counts",
    "check_seed",
    "check_shots",
    "choose_sink",
    "count",
    "cut",
    "draw_context_split",
    "draw_episodes",
    "draw_matched",
    "draw_split",
    "few_shot",
    "generator",
    "half",
    "header",
    "hold_out",
    "in_context",
    "instructed",
    "instruction_only",
    "load_pool",
    "same_inputs",
    "shot_counts",
    "shuffle_labels",
    "shuffled",
    "wants_leading_space",
    "whole",
    "whole_numbers",
    "with_dummies",
    "zero_shot",
]
