"""Loads language models, and runs them with edits, by TransformerLens and Transformers."""

from icl_mech.model.adapters import is_adapter, read_adapter
from icl_mech.model.edits import SITES, Edit, Mode, Site
from icl_mech.model.generation import Generation
from icl_mech.model.hooked import HookedModel, check_model
from icl_mech.model.knockouts import Knockout
from icl_mech.model.loading import load_model
from icl_mech.model.placing import AnyEdit
from icl_mech.model.readout import Readout, as_array
from icl_mech.model.sources import check_layer_of, check_source
from icl_mech.model.tuning import Outline, TunedModel, load_tuned, outline, seeded
from icl_mech.model.vocabulary import TopTokens

__all__ = [
    "SITES",
    "AnyEdit",
    "Edit",
    "Generation",
    "HookedModel",
    "Knockout",
    "Mode",
    "Outline",
    "Readout",
    "Site",
    "TopTokens",
    "TunedModel",
    "as_array",
    "check_layer_of",
    "check_model",
    "check_source",
    "is_adapter",
    "load_model",
    "load_tuned",
    "outline",
    "read_adapter",
    "seeded",
]
