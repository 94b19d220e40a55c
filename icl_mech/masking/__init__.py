"""Context masking: by which layer have the demonstrations been read?"""

import lazy_loader

# The public names stand in the stub beside this file; each is loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
