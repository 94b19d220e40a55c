"""The main table: zero-shot, task vector and few-shot accuracy for all tasks, on any model."""

import lazy_loader

# The public names stand in the stub beside this file; each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
