"""Activation patching: where does a task vector work, and where does a prompt hold the task?"""

import lazy_loader

# The public names stand in the stub beside this file; each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
