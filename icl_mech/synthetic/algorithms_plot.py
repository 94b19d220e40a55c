"""Figure: distances of the predictions to reference algorithms, and how much of W layers hold."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, shades, title
from icl_mech.synthetic.plot import TOKENS, line

if TYPE_CHECKING:
    from icl_mech.synthetic import Emergence

_HEIGHT, _GAP = 320, 125
_NAMES = {
    "ridge": ("ridge, all coord.", "shuffled"),
    "lasso": ("LASSO", "function"),
    "least_squares": ("least squares, all coord.", "random"),
    "known_basis_least_squares": ("least squares, basis known", "lens"),
    "known_basis_ridge": ("ridge, basis known", "regular"),
    "known_family": ("family known", "regular"),
    "bayes_mixture": ("Bayes mixture (optimum)", "theta"),
}
#: Families of algorithms by their number of steps: name, and shades.
_DESCENTS = {
    "gradient_descent_": ("gradient descent", "Purples"),
    "mixture_gradient_descent_": ("GD in each basis", "Oranges"),
}


_DESCENT = (
    "GD in each basis: gradient descent on each basis' coordinates, weighted by the posterior of "
    "the bases; "
)


def algorithm_figure(result: Emergence) -> go.Figure:
    """Top panel: distances over training. Bottom panel: R² of W by layer at some checkpoints."""
    limit = result.weight_limit
    shows = "no share would show" if limit != limit else f"a true R² of {limit:.2f} would show"
    figure = rows_of_panels(
        [_HEIGHT, _HEIGHT],
        _GAP,
        [
            "Distance of the predictions to those of each algorithm",
            f"W, read by a linear probe at {TOKENS[result.provenance['token']]}<br>"
            f"(cross-validated on {result.n_probe} sequences per {result.kind}; {shows})",
        ],
    )
    x = [1 + step for step in result.steps]
    found = result.distances()
    looks = _looks(result.references)
    for i, name in enumerate(result.references):
        figure.add_trace(line(x, found, i, *looks[name]), row=1, col=1)
    for trace in _weights(result):
        figure.add_trace(trace, row=2, col=1)
    figure.update_xaxes(gridcolor=GRID)
    figure.update_yaxes(gridcolor=GRID)
    figure.update_xaxes(title_text="1 + updates (log scale)", type="log", dtick=1, row=1)
    figure.update_yaxes(title_text="mean squared distance (log)", type="log", dtick=1, row=1)
    figure.update_xaxes(title_text=AFTER_BLOCK, dtick=1, row=2)
    figure.update_yaxes(title_text="R² of W", range=[-0.08, 1.03], row=2)
    p = result.provenance
    title(
        figure,
        f"Which algorithm does {escape(p['model'])} follow?",
        f"mean over all numbers of examples; {p['n_per_basis']} held-out sequences per "
        f"{result.kind}; {_DESCENT * (result.kind == 'basis')}hover for 95 % intervals",
    )
    frame(figure, legend=True)
    return figure


def _looks(references: list[str]) -> dict[str, tuple[str, str]]:
    """Name and colour of each reference."""
    looks = {name: (label, COLOURS[colour]) for name, (label, colour) in _NAMES.items()}
    for prefix, (label, scale) in _DESCENTS.items():
        family = [name for name in references if name.startswith(prefix)]
        places = [0.35 + 0.6 * (i + 1) / len(family) for i in range(len(family))]
        for name, shade in zip(family, sample_colorscale(scale, places), strict=True):
            n = name.removeprefix(prefix)
            looks[name] = (f"{label}, {n} step{'' if n == '1' else 's'}", shade)
    return looks


def _weights(result: Emergence) -> list[go.Scatter]:
    """A curve over layers for the first, the last and some checkpoints between."""
    last = len(result.steps) - 1
    chosen = sorted({round(last * share) for share in (0, 0.5, 0.75, 1)})
    traces = []
    for i, shade in zip(chosen, shades(len(chosen)), strict=True):
        step = result.steps[i]
        found = result.weight_r2(step)
        layers = list(range(len(found.value)))
        traces.append(
            go.Scatter(
                x=layers,
                y=found.value.clip(min=-0.05),
                customdata=list(zip(found.value, found.low, found.high, strict=True)),
                mode="lines+markers",
                name=f"after {step:,} updates",
                line={"color": shade, "width": 2},
                hovertemplate=(
                    f"after {step:,} updates, block %{{x}}: %{{customdata[0]:.2f}} "
                    "[%{customdata[1]:.2f}, %{customdata[2]:.2f}]<extra></extra>"
                ),
            )
        )
    return traces
