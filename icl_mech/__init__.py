"""icl-mech: where does in-context learning form its task vector, and where is it decoded?"""

import warnings
from importlib.metadata import version

import lazy_loader

from icl_mech.imports import uncollected
from icl_mech.interrupts import end_quietly

end_quietly()

# tqdm, which several libraries import, warns in a notebook without ipywidgets that bars are text.
warnings.filterwarnings("ignore", "IProgress not found")

__version__ = version("icl-mech")

# The public names stand in the stub beside this file; each is loaded on first use, so that
# `import icl_mech` does not wait for torch.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    with uncollected():
        return _load(name)
