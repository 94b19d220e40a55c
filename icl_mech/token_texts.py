"""Texts of token ids: results keep a text for every id that they hold, and frames show it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

#: The key of the texts in provenance, and the name of their column in frames, beside `top`.
KEY, COLUMN = "token_texts", "top_text"


def token_texts(to_string: Callable[[int], str], *ids: np.ndarray) -> dict[str, str]:
    """Every token id with its text, as in source code: a line break is a backslash and an n.

    Args:
        to_string: the model's method.
        ids: arrays of token ids; negative ids mean no token.

    >>> token_texts(lambda token: f" {token}\\n", np.array([[7, -1], [7, 12]]))
    {'7': ' 7\\\\n', '12': ' 12\\\\n'}
    """
    known = np.unique(np.concatenate([np.ravel(array) for array in ids]))
    return {str(token): repr(to_string(token))[1:-1] for token in known[known >= 0].tolist()}


def with_texts(frame: pd.DataFrame, provenance: Mapping[str, Any]) -> pd.DataFrame:
    """The frame with a column of texts beside `top`; NA if an older file has no text.

    >>> with_texts(pd.DataFrame({"top": [7, 8], "n": 1}), {"token_texts": {"7": " a"}})
       top top_text  n
    0    7        a  1
    1    8     <NA>  1
    """
    known = provenance.get(KEY, {})
    texts = [known.get(str(token), pd.NA) for token in frame["top"]]
    at = list(frame.columns).index("top") + 1
    frame.insert(at, COLUMN, pd.Series(texts, index=frame.index, dtype="object"))
    return frame
