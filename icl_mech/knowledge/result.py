"""The result of `knowledge_conflict`: which answer wins, the shown or the known one."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.knowledge.plan import CONDITIONS
from icl_mech.results import TaskResult, few_queries, with_ends
from icl_mech.stats import (
    CONFIDENCE,
    ENDS,
    Estimate,
    holm,
    mean,
    means,
    paired_difference,
    ratio_of_means,
    resampled_means,
    share,
    sign_flip_p,
)
from icl_mech.vector_methods.plan import NAMED

#: The prompts in which heads are read: without the contradiction, and with it.
HEADS_IN = ("right", "lookup")
#: The sources of vectors: right pairs, pairs with exchanged answers, (theta only) the contradicting
#: prompt itself with dummy queries, and a random vector of the same norm.
SOURCES = ("right", "exchanged", "lookup", "random")
#: The prompts into which vectors are written.
INTO = ("zero_shot", "lookup")
#: Whose answer the top token begins; the index is the number in `follows`.
FOLLOWS = ("neither", "shown", "known")
#: The share of the whole shift that a layer's state must bring to count in `state_from`.
HALF = 0.5


class KnowledgeConflict(TaskResult):
    """logit(shown) - logit(known) of every query after every prompt, by layer, head and vector.

    `data` holds, over (`task`, `condition`, `prompt`): `difference`, the measure in logits (above
    0: the answer that the context shows is more probable), and `follows` (the top token begins 0
    neither, 1 the shown, 2 the known answer); `lens` over (`task`, `condition`, `layer`, `prompt`),
    the measure read from the stream after each block; `state` over (`task`, `layer`, `prompt`), the
    measure in `right` prompts with the last token's stream of `lookup` written in; `head_effect`
    and `head_attention` (to the label that contradicts) over (`task`, `head_condition`, `prompt`,
    `layer`, `head`), `mlp_effect` without `head`; `vector_difference` and `vector_follows` over
    (`task`, `vector`, `source`, `into`, `prompt`), and `vector_by_layer` of right vectors over
    (`task`, `vector`, `into`, `layer`, `prompt`). `known` tells whether the model answers the query
    right after other right demonstrations. Numbers are of these queries, or of all queries if the
    model knows none.
    """

    ARRAYS: ClassVar = {
        "difference": ("task", "condition", "prompt"),
        "follows": ("task", "condition", "prompt"),
        "lens": ("task", "condition", "layer", "prompt"),
        "vector_difference": ("task", "vector", "source", "into", "prompt"),
        "known": ("task", "prompt"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        "right",
        *with_ends("lookup", "shown_minus_known"),
        "lens_from",
        "state_from",
        "known",
    )

    @property
    def conditions(self) -> list[str]:
        """The names of the five prompts of every query."""
        return [str(name) for name in self.data["condition"].values]

    @property
    def vectors(self) -> list[str]:
        """The methods whose vectors were written."""
        return [str(name) for name in self.data["vector"].values]

    @property
    def layers(self) -> list[int]:
        """The blocks."""
        return [int(n) for n in self.data["layer"].values]

    def queries(self, task: str) -> np.ndarray:
        """The query of each test prompt of a task."""
        n_asked = int(self._array(task, "n_asked"))
        found: np.ndarray = self._array(task, "query").values[:n_asked]
        return found

    def kept(self, task: str) -> np.ndarray:
        """Indices of the prompts that numbers are computed from."""
        known = self._array(task, "known").values
        found: np.ndarray = np.flatnonzero(known == 1)
        return found if len(found) else np.flatnonzero(np.isfinite(known))

    def n_known(self, task: str) -> int:
        """Number of queries whose answer the model knows."""
        return int((self._array(task, "known").values == 1).sum())

    # --- answers ---------------------------------------------------------------------------------

    def difference(self, task: str, condition: str = "lookup") -> Estimate:
        """Mean of the measure (logits), with its interval over queries.

        Args:
            task: one of `tasks`.
            condition: one of `conditions`.
        """
        return mean(self._values(task, condition), clusters=self._clusters(task))

    def shift(self, task: str, condition: str = "lookup", base: str = "right") -> Estimate:
        """The measure after one prompt minus that after another, paired by query."""
        after, before = (self._values(task, c) for c in (condition, base))
        return paired_difference(after, before, clusters=self._clusters(task))

    def follows(self, task: str, what: str = "shown", condition: str = "lookup") -> Estimate:
        """Share of queries whose top token begins the shown answer, the known one, or neither.

        Args:
            task: one of `tasks`.
            what: one of `FOLLOWS`.
            condition: one of `conditions`.
        """
        top = self._here(task, "follows").sel(condition=choose(condition, CONDITIONS, "condition"))
        number = FOLLOWS.index(choose(what, FOLLOWS, "kind of answer"))
        return share(top.values == number, self._clusters(task))

    def shown_minus_known(self, task: str, condition: str = "lookup") -> Estimate:
        """The share that follows the shown answer minus the share that follows the known one."""
        top = self._here(task, "follows").sel(condition=choose(condition, CONDITIONS, "condition"))
        shown, known = (
            (top.values == FOLLOWS.index(name)).astype(float) for name in ("shown", "known")
        )
        return paired_difference(shown, known, clusters=self._clusters(task))

    # --- from which layer on ---------------------------------------------------------------------

    def lens_curve(self, task: str, condition: str = "lookup") -> list[Estimate]:
        """The measure read from the stream after every block, by the logit lens."""
        values = self._lens(task, choose(condition, CONDITIONS, "condition"))
        return means(values, clusters=self._clusters(task)).rows()

    def state_curve(self, task: str) -> list[Estimate]:
        """Share of the shift that the last token's stream of `lookup` brings, by block.

        0: the measure is that of the `right` prompt; 1: that of `lookup`. NaN if the measure does
        not differ between the prompts.
        """
        moved, whole = self._moved(task)
        return ratio_of_means(moved, whole, clusters=self._clusters(task)).rows()

    def lens_from(self, task: str) -> int | None:
        """The block from which on the lens measure is higher after `lookup` than after `right`.

        The intervals of the difference lie above 0 after this block and all later ones. None if
        they do not after the last block.
        """
        apart = self._lens(task, "lookup") - self._lens(task, "right")
        above = [e.low > 0 for e in means(apart, clusters=self._clusters(task)).rows()]
        return _for_good(above)

    def state_from(self, task: str) -> Estimate | None:
        """The block from which on the last token holds at least half of the shift, for good.

        "For good" means after this block and all later ones. The interval is over bootstrap draws
        of queries. None if the measure is not shown to differ between the prompts, or if there is
        no such block in the mean or in more than 5 % of the draws.
        """
        if not self.shift(task).low > 0:
            return None
        moved, whole = self._moved(task)
        both = np.concatenate([moved, whole[:, None]], axis=1)
        draws = resampled_means(both, clusters=self._clusters(task))
        found = [_for_good(row[:-1] >= HALF * row[-1]) for row in draws]
        at = _for_good(both.mean(axis=0)[:-1] >= HALF * both[:, -1].mean())
        layers = np.array([np.nan if n is None else n for n in found], dtype=float)
        if at is None or np.isnan(layers).mean() > 1 - CONFIDENCE:
            return None
        low, high = np.nanquantile(layers, ENDS, method="nearest")
        return Estimate(float(at), float(low), float(high), len(moved))

    # --- heads -----------------------------------------------------------------------------------

    def heads(self, task: str, n: int = 10) -> pd.DataFrame:
        """The heads whose direct effect on the measure changes most by the contradiction.

        Args:
            task: one of `tasks`.
            n: number of heads.

        Returns:
            A row per head ("9.3"): its direct effect (logits) after `lookup`, after `right`, the
            `change` with its interval (of this head alone), `p_holm` of a sign-flip test over
            queries (corrected for the number of all heads), its attention to the label that
            contradicts, and `carries`: `"shown"` or `"known"` if the change differs from 0, else an
            empty text. The table is empty if heads could not be read.
        """
        clusters, axes = self._clusters(task), ("prompt", "layer", "head")
        effect = self._here(task, "head_effect").transpose("head_condition", *axes)
        if np.isnan(effect.values).any():
            return pd.DataFrame()
        right, lookup = (effect.sel(head_condition=c).values for c in HEADS_IN)
        change = (lookup - right).reshape(len(lookup), -1)
        p = holm(np.array([sign_flip_p(column, clusters) for column in change.T]))
        found = means(change, clusters=clusters).rows()
        looks = self._here(task, "head_attention").sel(head_condition="lookup")
        attention = looks.transpose(*axes).values.mean(axis=0).reshape(-1)
        n_heads = effect.sizes["head"]
        rows = {}
        for i in sorted(range(len(found)), key=lambda j: -abs(found[j].value))[:n]:
            told = p[i] < 1 - CONFIDENCE
            rows[f"{i // n_heads}.{i % n_heads}"] = {
                "lookup": float(lookup.reshape(len(lookup), -1)[:, i].mean()),
                "right": float(right.reshape(len(right), -1)[:, i].mean()),
                **found[i].columns("change"),
                "p_holm": float(p[i]),
                "attention": float(attention[i]),
                "carries": ("shown" if found[i].value > 0 else "known") if told else "",
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    # --- vectors ---------------------------------------------------------------------------------

    def vector_difference(
        self, task: str, vector: str, source: str = "right", into: str = "lookup"
    ) -> Estimate:
        """The measure with a vector in place.

        Args:
            task: one of `tasks`.
            vector: one of `vectors`.
            source: the source of the vector, one of `SOURCES`.
            into: the prompt that it is written into, one of `INTO`.
        """
        values = self._vector("vector_difference", task, vector, source, into).values
        return mean(values.astype(float), clusters=self._clusters(task))

    def vector_follows(
        self,
        task: str,
        vector: str,
        what: str = "known",
        source: str = "right",
        into: str = "lookup",
    ) -> Estimate:
        """Share of queries whose top token follows the shown or the known answer, or neither."""
        top = self._vector("vector_follows", task, vector, source, into).values
        number = FOLLOWS.index(choose(what, FOLLOWS, "kind of answer"))
        return share(top == number, self._clusters(task))

    def vector_shift(
        self, task: str, vector: str, source: str = "right", into: str = "lookup"
    ) -> Estimate:
        """The measure with a vector minus that of the same prompt without it."""
        values = self._vector("vector_difference", task, vector, source, into).values
        base = self._values(task, into)
        return paired_difference(values.astype(float), base, clusters=self._clusters(task))

    def vector_curve(self, task: str, vector: str, into: str = "lookup") -> dict[int, Estimate]:
        """The measure with the vector of right pairs, for each block where it was written."""
        choose(vector, self.vectors, "vector")
        choose(into, INTO, "prompt")
        of = self._here(task, "vector_by_layer").sel({"vector": vector, "into": into})
        values = of.transpose("prompt", "layer").values.astype(float)
        there = np.flatnonzero(np.isfinite(values).all(axis=0))
        found = means(values[:, there], clusters=self._clusters(task)).rows()
        return dict(zip(there.tolist(), found, strict=True))

    # --- what results have -----------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per task: the measure after every prompt, the layers, and every vector."""
        return pd.DataFrame([self._row(task) for task in self.tasks]).set_index("task")

    def _row(self, task: str) -> dict[str, Any]:
        row: dict[str, Any] = {"task": task}
        for condition in CONDITIONS:
            row |= self.difference(task, condition).columns(condition)
            row |= self.follows(task, "shown", condition).columns(f"{condition}_follows_shown")
            row |= self.follows(task, "known", condition).columns(f"{condition}_follows_known")
        row |= self.shift(task).columns("shift")
        row |= self.shift(task, "exchanged").columns("exchanged_shift")
        row |= self.shown_minus_known(task).columns("shown_minus_known")
        state, lens = self.state_from(task), self.lens_from(task)
        row["lens_from"] = np.nan if lens is None else lens
        row |= (state or Estimate(np.nan, np.nan, np.nan, 0)).columns("state_from")
        for vector in self.vectors:
            for source in self._sources(task, vector):
                for into in INTO:
                    name = f"{vector}_{source}_into_{into}"
                    row |= self.vector_difference(task, vector, source, into).columns(name)
                    for what in ("shown", "known"):
                        found = self.vector_follows(task, vector, what, source, into)
                        row[f"{name}_follows_{what}"] = found.value
        return row | {"known": self.n_known(task), "n_asked": int(self.of(task)["n_asked"])}

    def _sources(self, task: str, vector: str) -> list[str]:
        """The sources for which a method has vectors."""
        of = self._here(task, "vector_difference").sel({"vector": vector})
        there = np.isfinite(of.transpose("source", "into", "prompt").values).all(axis=(1, 2))
        return [source for source, yes in zip(SOURCES, there, strict=True) if yes]

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, condition, prompt)."""
        names = ["difference", "follows", "query", "known_answer", "shown_answer", "known"]
        frame = self.data[names].to_dataframe().reset_index()
        frame = frame[frame["difference"].notna()].reset_index(drop=True)
        frame["follows"] = [FOLLOWS[int(n)] for n in frame["follows"]]
        return frame

    def finding(self, task: str | None = None) -> str:
        """Which answer wins after `lookup`, if `shown_minus_known` differs from 0.

        Args:
            task: one of `tasks`; by default all.
        """
        tasks = self.tasks if task is None else [choose(task, self.tasks, "task")]
        if len(tasks) == 1:
            return self._one(tasks[0])
        found = [self.shown_minus_known(t) for t in tasks]
        context, weights = sum(e.low > 0 for e in found), sum(e.high < 0 for e in found)
        if not context and not weights:
            return f"Neither context nor knowledge is shown to win in any of {len(tasks)} tasks"
        return (
            f"The context's answer wins in {context} of {len(tasks)} tasks, the known one in "
            f"{weights}"
        )

    def _one(self, task: str) -> str:
        apart = self.shown_minus_known(task)
        shown, known = (self.follows(task, what).value for what in ("shown", "known"))
        numbers = f"{shown:.0%} to {known:.0%} of the queries"
        if not (apart.low > 0 or apart.high < 0):
            return f"Neither context nor knowledge is shown to win, {numbers}"
        winner = "context's answer" if apart.low > 0 else "known answer"
        state = self.state_from(task)
        where = ""
        if state is not None:
            where = f"; the contradiction is at the last token from block {state.value:.0f} on"
        return f"The {winner} wins, {numbers} (shown to known){where}"

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        for task in self.tasks:
            about, n = self.provenance["tasks"][task], int(self.of(task)["n_asked"])
            known = self.n_known(task)
            if not known:
                notes.append(
                    f"{task}: the model answers no query right after right demonstrations; all "
                    f"{n} count, and what it knows is not contradicted"
                )
            elif known < n:
                notes.append(f"{task}: numbers are of the {known} of {n} queries that it knows")
            if about["n_left_out"]:
                notes.append(
                    f"{task}: {about['n_left_out']} queries left out: all answers shown begin like "
                    "the right one"
                )
            notes += [f"{task}, {name}: {line}" for name, line in about["notes"].items()]
        notes.append(
            "direct effects say what a head itself writes towards the two answers at the last "
            "token, not what later blocks make of it"
        )
        return notes

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            state, lens = self.state_from(task), self.lens_from(task)
            rows[task] = {
                **{f"shown − known, {c}": str(self.difference(task, c)) for c in CONDITIONS},
                "follows shown": str(self.follows(task, "shown")),
                "known": str(self.follows(task, "known")),
                "shown, insisted": str(self.follows(task, "shown", "insisted")),
                "from block, lens": "none" if lens is None else str(lens),
                "state": "none"
                if state is None
                else f"{state.value:.0f} [{state.low:.0f}, {state.high:.0f}]",
            }
            for vector in self.vectors:
                found = self.vector_follows(task, vector, "known")
                rows[task][f"known, {NAMED[vector]} in lookup"] = str(found)
        return pd.DataFrame.from_dict(rows, orient="index")

    def few(self) -> str:
        asked = {t: self.queries(t)[self.kept(t)] for t in self.tasks}
        return few_queries({t: (len(set(q.tolist())), len(q)) for t, q in asked.items()})

    def _draw(self) -> go.Figure:
        """The measure by layer, the share that the last token holds, heads, and vectors."""
        from icl_mech.knowledge.plot import knowledge_figure

        return knowledge_figure(self)

    # --- implementation --------------------------------------------------------------------------

    def _here(self, task: str, name: str) -> xr.DataArray:
        """One of a task's arrays for the kept prompts."""
        return self._array(task, name).isel(prompt=self.kept(task))

    def _clusters(self, task: str) -> np.ndarray:
        found: np.ndarray = self._here(task, "query").values
        return found

    def _values(self, task: str, condition: str) -> np.ndarray:
        choose(condition, CONDITIONS, "condition")
        values: np.ndarray = self._here(task, "difference").sel(condition=condition).values
        return values.astype(float)

    def _lens(self, task: str, condition: str) -> np.ndarray:
        """The lens, `[prompt, layer]`."""
        of = self._here(task, "lens").sel(condition=condition).transpose("prompt", "layer")
        values: np.ndarray = of.values
        return values.astype(float)

    def _moved(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """The shift by the state after every block, `[prompt, layer]`, and the whole shift."""
        base = self._values(task, "right")
        state = self._here(task, "state").transpose("prompt", "layer").values.astype(float)
        return state - base[:, None], self._values(task, "lookup") - base

    def _vector(self, name: str, task: str, vector: str, source: str, into: str) -> xr.DataArray:
        choose(vector, self.vectors, "vector")
        choose(source, SOURCES, "source")
        choose(into, INTO, "prompt")
        return self._here(task, name).sel({"vector": vector, "source": source, "into": into})


def _for_good(holds: Sequence[bool] | np.ndarray) -> int | None:
    """The first index from which on all are true; None if the last is not.

    >>> _for_good([True, False, True, True]), _for_good([True, False])
    (2, None)
    """
    at = len(holds)
    while at and holds[at - 1]:
        at -= 1
    return at if at < len(holds) else None
