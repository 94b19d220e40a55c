"""Which attention heads carry the task to the last token?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.heads.attribution import head_attribution
    from icl_mech.heads.result import HeadAttribution

# Loaded on first use: `python -m icl_mech.heads --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"attribution": ["head_attribution"], "result": ["HeadAttribution"]},
)
__all__ = ["HeadAttribution", "head_attribution"]
