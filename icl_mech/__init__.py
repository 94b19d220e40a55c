"""icl-mech: where does in-context learning form its task vector, and where is it decoded?"""

from importlib.metadata import version

import lazy_loader

from icl_mech.interrupts import end_quietly

end_quietly()

__version__ = version("icl-mech")

# The public names stand in the stub beside this file; each is loaded on first use, so that
# `import icl_mech` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
