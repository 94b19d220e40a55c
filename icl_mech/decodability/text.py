"""The summary of task decodability as text."""

import numpy as np
import pandas as pd

_COLUMNS = {
    "td": "TD",
    "shuffled": "shuffled labels",
    "input": "query alone",
    "probe": "linear probe",
    "accuracy": "accuracy",
}


def as_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Numbers with their intervals, for people."""
    text = pd.DataFrame(index=summary.index)
    for name, title in _COLUMNS.items():
        if name in summary:
            text[title] = [
                "–" if np.isnan(v) else f"{v:.2f} [{low:.2f}, {high:.2f}]"
                for v, low, high in summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
            ]
    layers = zip(summary["layer_first_half"], summary["layer_second_half"], strict=True)
    # Chosen on one half of the queries each: the same where the choice is clear.
    text["layers"] = [", ".join(str(layer) for layer in sorted(set(pair))) for pair in layers]
    return text
