"""Every way to get a task vector, side by side, with a distance to the few-shot prompt."""

import lazy_loader

# The public names stand in the stub beside this file; each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
