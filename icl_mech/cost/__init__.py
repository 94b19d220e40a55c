"""Predicts the operations, bytes and memory of a question from a model's configuration alone."""

import lazy_loader

# The stub beside this file lists the public names. Each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
