"""What all figures share: colours, fonts, margins, titles."""

import plotly.graph_objects as go

#: One colour per meaning, the same in every figure (Okabe and Ito's colour-blind safe set).
COLOURS = {
    "theta": "#0072B2",
    "regular": "#009E73",
    "baseline": "#555555",
    "prior": "#999999",
    "shuffled": "#E69F00",
    "other_task": "#CC79A7",
    "random": "#D55E00",
}
FONT = {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 14, "color": "#222222"}
GRID = "#E8E8E8"
MARGIN = {"l": 70, "r": 30, "t": 95, "b": 70}


def title(figure: go.Figure, text: str, subtitle: str) -> None:
    """Set the look that all figures share. Both texts must be escaped already."""
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        title={
            "text": text,
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": "#666666"}},
            "x": 0.01,
            "xanchor": "left",
            "y": 0.98,
            "yanchor": "top",
        },
        margin=MARGIN,
        hovermode="closest",
    )
