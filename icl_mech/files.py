"""Files: where pages have plotly.js from, and permissions by the user's umask."""

import os
from pathlib import Path
from typing import Literal

#: Where a page has plotly.js from (4.8 MB): inside; from plotly's server, which needs network; or
#: from a file beside it, which all pages of a folder share.
PlotlyJs = Literal["inline", "cdn", "directory"]


def follow_umask(path: Path) -> None:
    """Give a file, or a folder and all in it, the permissions that new ones have.

    Temporary files and folders are made for their owner alone, whatever the umask.

    Raises:
        OSError: where the permissions cannot be changed.
    """
    umask = os.umask(0o077)  # the umask can only be read by setting it
    os.umask(umask)
    for each in [path, *(path.rglob("*") if path.is_dir() else [])]:
        each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
