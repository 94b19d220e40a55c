"""The picture of a decoder: from the demonstrations to theta, and from theta to the answer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, PAPER, RULE, state, subject
from icl_mech.stats import means

if TYPE_CHECKING:
    from icl_mech.decoder import Decoder

_HEIGHT, _GAP = 380, 95
#: Steps of the slider: components with a smaller share of the effect are hidden.
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
#: The widest line, in pixels, and the share that it stands for.
_WIDEST, _FULL = 14.0, 0.6
_HEAD, _MLP = "heads", "probe"


def decoder_figure(result: Decoder) -> go.Figure:
    """A row per task: the graph of paths, and the share of the effect of sets of components."""
    tasks = result.tasks
    titles = [
        title
        for task in tasks
        for title in (f"{escape(task)}: paths", "share of θ's effect, by number of components")
    ]
    figure = rows_of_panels(
        [_HEIGHT] * len(tasks),
        _GAP,
        titles,
        2,
        column_widths=[0.68, 0.32],
        horizontal_spacing=0.09,
    )
    shares: list[float | None] = []
    for row, task in enumerate(tasks, 1):
        shares += _graph(figure, result, task, row)
        shares += _sets(figure, result, task, row)
    _slider(figure, shares)
    p = result.provenance
    state(
        figure,
        result,
        f"Which heads and MLPs decode θ? {subject(tasks)}, {escape(p['model'])}",
        f"widths: share of the effect, to θ by AIE, from θ by path patching, to the answer by what "
        f"is lost without; {result.data.sizes['prompt']} prompts per task, {p['n_shots']} shots, "
        f"seed {p['seed']}; bands: 95 % intervals over queries",
    )
    frame(figure, below=110, legend=True)
    return figure


def _graph(figure: go.Figure, result: Decoder, task: str, row: int) -> list[float | None]:
    """Draw nodes and lines of one task; return the share of each trace, None if always shown."""
    here = result.of(task)
    n_layers, parts = here.sizes["layer"], [str(p) for p in here["part"].values]
    layer, middle = result.theta_layer(task), (len(parts) - 1) / 2
    theta, start, end = (layer + 0.5, middle), (-1.6, middle), (n_layers + 0.8, middle)
    shares: list[float | None] = []

    def add(share: float | None, trace: go.Scatter) -> None:
        shares.append(share)
        figure.add_trace(trace, row=row, col=1)

    for name, place, share, text in _writers(result, task):
        colour = COLOURS[_HEAD]
        add(share, _line([start, place, theta], colour, share))
        add(share, _node(place, colour, name, text, "head that writes θ (AIE)", row == 1))
    table = result.components(task)
    whole = result.effect(task).value
    for name, found in table.iterrows():
        part = parts.index("mlp" if str(name).startswith("MLP") else str(name).split("H")[1])
        place = (float(found["layer"]), float(part))
        mlp = parts[part] == "mlp"
        colour = COLOURS[_MLP if mlp else _HEAD]
        reads, needed = found["sufficiency"] / whole, found["share"]
        share = max(reads, needed)
        if share < THRESHOLDS[0]:
            continue
        text = "<br>".join(
            f"{what}: {found[key] / whole:+.0%} [{found[f'{key}_low'] / whole:+.0%}, "
            f"{found[f'{key}_high'] / whole:+.0%}]"
            for key, what in (
                ("necessity", "lost without it"),
                ("sufficiency", "brought by its path alone"),
                ("direct", "direct effect"),
            )
        )
        add(share, _line([theta, place], colour, reads))
        add(share, _line([place, end], colour, needed))
        kind = "MLP that reads θ" if mlp else "head that reads θ"
        add(share, _node(place, colour, str(name), text, kind, False, hollow=True))
    bypass = result.bypass(task)
    for place, label, text in (
        (start, "demon-<br>strations", "the prompt's demonstrations"),
        (theta, "θ", f"after block {layer}; effect {result.effect(task)} nats"),
        (end, "answer", f"past all components: {bypass} of the effect"),
    ):
        add(None, _end(place, label, text))
    ticks = [f"head {p}" for p in parts[:-1]] + ["MLP"]
    figure.update_yaxes(
        tickvals=list(range(len(parts))), ticktext=ticks, range=[-0.7, len(parts) - 0.3],
        gridcolor=GRID, zeroline=False, row=row, col=1,
    )  # fmt: skip
    figure.update_xaxes(
        range=[-2.9, n_layers + 2.2], tickvals=list(range(0, n_layers, 2 if n_layers <= 40 else 8)),
        title_text="block, from 0", gridcolor=GRID, zeroline=False, row=row, col=1,
    )  # fmt: skip
    return shares


def _writers(result: Decoder, task: str) -> list[tuple[str, tuple[float, float], float, str]]:
    """Heads up to theta's layer, each with its share of these heads' summed positive AIE."""
    here, layer = result.of(task), result.theta_layer(task)
    aie = here["aie"].values[:, : layer + 1].astype(float)
    estimates = means(aie.reshape(len(aie), -1), clusters=result.queries(task))
    total = estimates.value.clip(min=0).sum() or 1.0
    found = []
    for i, value in enumerate(estimates.value):
        at, head = divmod(i, aie.shape[2])
        share = value / total
        if share >= THRESHOLDS[0]:
            text = f"AIE {estimates.at(i)}: {share:.0%} of that of all heads up to θ"
            found.append((f"L{at}H{head}", (float(at), float(head)), float(share), text))
    return found


def _line(places: list[tuple[float, float]], colour: str, share: float) -> go.Scatter:
    x, y = zip(*places, strict=True)
    width = max(0.5, _WIDEST * min(1.0, max(share, 0) / _FULL))
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": colour, "width": width}, opacity=0.4,
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _node(
    place: tuple[float, float],
    colour: str,
    name: str,
    text: str,
    kind: str,
    legend: bool,
    hollow: bool = False,
) -> go.Scatter:
    return go.Scatter(
        x=[place[0]],
        y=[place[1]],
        mode="markers+text",
        marker={
            "size": 13,
            "color": PAPER if hollow else colour,
            "line": {"color": colour, "width": 2.5},
        },
        text=name.removeprefix("MLP "),  # its row is labelled MLP
        textposition="top center",
        textfont={"size": 11, "color": INK},
        name=kind,
        legendgroup=kind,
        showlegend=False,
        hovertemplate=f"<b>{name}</b>, {kind}<br>{text}<extra></extra>",
    )


def _end(place: tuple[float, float], label: str, text: str) -> go.Scatter:
    return go.Scatter(
        x=[place[0]],
        y=[place[1]],
        mode="markers+text",
        marker={"size": 18, "color": COLOURS["theta"], "symbol": "diamond"},
        text=label,
        textposition="bottom center",
        textfont={"size": 13, "color": INK},
        showlegend=False,
        hovertemplate=f"<b>{label.replace('-<br>', '')}</b><br>{escape(text)}<extra></extra>",
    )


def _sets(figure: go.Figure, result: Decoder, task: str, row: int) -> list[float | None]:
    """Curves of the effect lost without the first n components, kept with them, and at random."""
    sizes = result.sizes(task)
    added: list[float | None] = []
    for name, what, colour, dash in (
        ("gone without the first n found", "removed", "right", "solid"),
        ("left with these alone", "kept", "theta", "solid"),
        ("gone without n at random", "random_removed", "random", "dot"),
    ):
        found = [getattr(result, what)(task, size) for size in sizes]
        if np.isfinite([e.low for e in found]).all():
            figure.add_trace(band(sizes, found, COLOURS[colour], name), row=row, col=2)
            added.append(None)
        figure.add_trace(
            go.Scatter(
                x=sizes,
                y=[e.value for e in found],
                mode="lines+markers",
                line={"color": COLOURS[colour], "width": 2.5, "dash": dash},
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                hovertemplate=f"{name}: %{{y:.0%}} (n = %{{x}})<extra></extra>",
            ),
            row=row,
            col=2,
        )
        added.append(None)
    figure.update_xaxes(
        type="log", tickvals=sizes, ticktext=list(map(str, sizes)), title_text="components n",
        gridcolor=GRID, row=row, col=2,
    )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", gridcolor=GRID, zerolinecolor=RULE, row=row, col=2)
    return added


def _slider(figure: go.Figure, shares: list[float | None]) -> None:
    """A slider that hides components below a share of the effect."""
    steps: list[dict[str, Any]] = []
    for least in THRESHOLDS:
        visible = [share is None or share >= least for share in shares]
        steps.append({"label": f"{least:.0%}", "method": "restyle", "args": ["visible", visible]})
    active = 1
    for trace, share in zip(figure.data, shares, strict=True):
        trace.visible = share is None or share >= THRESHOLDS[active]
    figure.update_layout(
        sliders=[
            {
                "active": active,
                "steps": steps,
                "currentvalue": {"prefix": "drawn from a share of the effect of "},
                "len": 0.5,
                "x": 0,
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 60},
            }
        ]
    )
