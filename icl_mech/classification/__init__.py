"""Tasks with a few labels: balanced prompts, scores among the labels, accuracy class by class."""

import lazy_loader

# The public names stand in the stub beside this file; each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
