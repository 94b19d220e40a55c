"""Measures many models, tasks and seeds into one folder; resumable, on one machine or on Ray."""

import lazy_loader

# The stub beside this file lists the public names. Each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
