"""The figure of a position scan: maps of roles x layers, and of heads x layers."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.patch.positions_result import role_name
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import state, subject

if TYPE_CHECKING:
    import xarray as xr

    from icl_mech.patch import PositionScan

#: Pixels: the height of a row of a map, and the gap between two maps.
ROW, GAP = 24, 70
#: For each direction, a description of the patch and the name of the effect.
DIRECTIONS = {
    "denoise": ("clean activations into the corrupted prompt", "restored"),
    "noise": ("corrupted activations into the clean prompt", "lost"),
}
CORRUPTED = {
    "labels": "corrupted: shuffled labels",
    "task": "corrupted: another task's demonstrations",
    "query": "corrupted: another query",
}


@dataclass(frozen=True)
class Row:
    """A row of panels: one site, with a panel per direction.

    Attributes:
        name: of the site and, for heads, of the role; escaped.
        effects: per direction, over (`role`, `layer`) or (`head`, `layer`).
        labels: of the map's rows; escaped.
        y_title: the title of the axis of rows.
        site: the site that is patched.
    """

    name: str
    effects: dict[str, xr.Dataset]
    labels: list[str]
    y_title: str
    site: str


def layer_axis(site: str) -> str:
    """The title of the axis of layers; blocks are counted from 0."""
    where = {
        "resid_pre": "the stream before it",
        "resid_mid": "the stream between its attention and MLP",
        "resid_post": "the stream after it",
    }
    return f"block l ({where.get(site, 'what it computes')})"


def position_figure(scan: PositionScan) -> go.Figure:
    """Normalised effects, one map per site and direction (and task), on one colour scale."""
    rows = [row for task in scan.tasks for row in _rows(scan, task)]
    columns = len(scan.directions)
    heights = [ROW * len(row.labels) for row in rows]
    titles = [f"{row.name}, {d}" for row in rows for d in scan.directions]
    figure = rows_of_panels(
        heights, GAP, titles, columns, shared_yaxes=True, horizontal_spacing=0.03
    )
    largest = max(
        float(abs(effect["value"]).max()) for row in rows for effect in row.effects.values()
    )
    limit = min(1.0, largest) if largest > 0 else 1.0  # NaN (no prompts differ) gives 1
    for i, row in enumerate(rows, 1):
        for j, direction in enumerate(scan.directions, 1):
            figure.add_trace(_map(row, direction, limit), row=i, col=j)
        # Rows are placed by number: plotly would read the names of heads as numbers.
        ticks = {"tickvals": list(range(len(row.labels))), "ticktext": row.labels}
        figure.update_yaxes(**ticks, row=i)
        figure.update_yaxes(title_text=row.y_title, row=i, col=1)
    n_layers = scan.data.sizes["layer"]
    figure.update_yaxes(autorange="reversed", showgrid=False, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False, dtick=_step(n_layers * columns))
    for i, row in enumerate(rows, 1):  # below the last row of a site
        if i == len(rows) or rows[i].site != row.site:
            figure.update_xaxes(title_text=layer_axis(row.site), row=i)
    _style(figure, scan, limit)
    # The colour bar and its title need some height.
    figure.update_layout(height=max(figure.layout.height, 240))
    frame(figure)
    return figure


def _rows(scan: PositionScan, task: str) -> list[Row]:
    """The rows of panels of one task."""
    before = f"<b>{escape(task)}</b>, " if len(scan.tasks) > 1 else ""
    rows = []
    for site in scan.sites:
        effects = {d: scan.effect(task, site, d) for d in scan.directions}
        roles = [str(role) for role in effects[scan.directions[0]]["role"].values]
        if site != "z":
            labels = [escape(role_name(role)) for role in roles]
            rows.append(Row(f"{before}{site}", effects, labels, "", site))
            continue
        heads = [str(head) for head in scan.data["head"].values]
        for role in roles:
            at_role = {d: effect.sel(role=role) for d, effect in effects.items()}
            at_role = {d: effect.transpose("head", "layer") for d, effect in at_role.items()}
            name = f"{before}heads at {escape(role_name(role))}"
            rows.append(Row(name, at_role, heads, "head", site))
    return rows


def _map(row: Row, direction: str, limit: float) -> go.Heatmap:
    effect = row.effects[direction]
    value, low, high = (effect[name].values for name in ("value", "low", "high"))
    return go.Heatmap(
        z=value,
        x=effect["layer"].values,
        y=list(range(len(row.labels))),
        text=[
            [_interval(*ends) for ends in zip(*both, strict=True)]
            for both in zip(low, high, strict=True)
        ],
        customdata=[[f"{row.y_title} {label}".strip()] * len(value[0]) for label in row.labels],
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate=(
            f"<b>%{{customdata}}, layer %{{x}}</b><br>{DIRECTIONS[direction][1]}: %{{z:.3f}} "
            f"%{{text}}<br>n = {effect.attrs['n']} prompts<extra></extra>"
        ),
        name=f"{row.name}, {direction}",
    )


def _interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]" if low == low else "(no interval)"


def _step(n: int) -> int:
    """The distance between numbered layers if `n` layers stand side by side."""
    return 1 if n <= 24 else 2 if n <= 80 else 4


def _style(figure: go.Figure, scan: PositionScan, limit: float) -> None:
    p = scan.provenance
    shares = " or ".join(DIRECTIONS[d][1] for d in scan.directions)
    n = scan.data.sizes["prompt"]
    facts = [f"{n} pair{'s' * (n > 1)} of prompts" + " per task" * (len(scan.tasks) > 1)]
    if "corruption" in p:
        facts += [f"{p['n_shots']} shots", f"seed {p['seed']}", CORRUPTED[p["corruption"]]]
    how = [f"{d}: {DIRECTIONS[d][0]}" for d in scan.directions]
    if any(isinstance(role, str) for role in [*p["roles"], *p["head_roles"]]):
        how.append("a word of several tokens is patched at its last")
    state(
        figure,
        scan,
        f"Which activations make the difference? {subject(scan.tasks)}, {escape(p['model'])}",
        f"{'; '.join(facts)}<br>{'; '.join(how)}",
    )
    figure.update_layout(
        coloraxis={
            "colorscale": "RdBu_r",
            "cmin": -limit,
            "cmax": limit,
            "colorbar": {
                "title": {
                    "text": f"share {shares}<br>0: no effect, 1: all",
                    "font": {"size": 13},
                },
                "tickfont": {"size": 12},
                "thickness": 14,
                "lenmode": "pixels",
                "len": 240,
                "y": 1,
                "yanchor": "top",
            },
        }
    )
