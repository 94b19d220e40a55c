"""The result of `vector_variability`: distances between vectors, and how well each works."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_samples

from icl_mech.errors import InputError, choose
from icl_mech.layers import check_layer
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, Estimates, means, nearer_than_chance, pair_means, shares
from icl_mech.stats.projection import project
from icl_mech.variability.notes import notes
from icl_mech.variability.tables import by_shots, full_summary, known_mean, per_vector, text
from icl_mech.vectors import Choice, choose_layer

#: The vectors that are injected: theta, and theta of the same demonstrations with shuffled labels.
KINDS = ("theta", "shuffled")
#: Distances of vectors as they are (the paper's), or minus the mean of all vectors.
FORMS = ("raw", "centred")


class VectorVariability(TaskResult):
    """Distances between task vectors at every layer, and how well each vector works.

    `data` holds `distance` over (`shots`, `form`, `layer`, `pair`): cosine distances (0 to 2) of
    any two different vectors, in scipy's condensed order of the vectors (all of the first task,
    then all of the second, ...); `square` gives them as a table. Over (`task`, `vector`): whether
    the zero-shot prompt is answered right with the vector (`right`, by `shots`, `kind` and `layer`)
    and without (`baseline_right`), the distance to theta from shuffled labels
    (`shuffled_distance`) and to a random vector (`random_distance`), and `norm`; `dev_right` over
    (`task`, `dev_vector`, `layer`).

    Arguments that several methods share:

    - `task`: one of `tasks`; by default all of them.
    - `layer`: a block number; by default the one that is best on dev vectors over all tasks.
      `layers`: several; by default all.
    - `shots`: the number of demonstrations per vector; by default the largest.
    - `form`: `"raw"` (vectors as they are) or `"centred"` (minus the mean of all tasks' vectors,
      which removes what all vectors share). Centring alone pushes most tasks apart and pulls some
      pairs together; `pairs_of_tasks` says which are nearer than by chance.
    """

    ARRAYS: ClassVar = {
        "distance": ("shots", "form", "layer", "pair"),
        "right": ("shots", "kind", "layer", "task", "vector"),
        "baseline_right": ("task", "vector"),
        "norm": ("task", "vector"),
        "dev_right": ("task", "dev_vector", "layer"),
        "query": ("task", "vector"),
    }
    QUOTED: ClassVar = (
        "layer",
        "shots",
        *with_ends("within", "between"),
        "silhouette",
        "accuracy",
        "baseline",
        "n_vectors",
    )

    @property
    def layers(self) -> list[int]:
        """Blocks after which the vectors were read."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def shots(self) -> list[int]:
        """Numbers of demonstrations."""
        return [int(n) for n in self.data["shots"].values]

    @property
    def labels(self) -> Int[np.ndarray, "point"]:
        """The task of every vector, as an index into `tasks`."""
        return np.repeat(np.arange(len(self.tasks)), self.data.sizes["vector"])

    def square(
        self, layer: int, shots: int | None = None, form: str = "raw"
    ) -> Float[np.ndarray, "point point"]:
        """Distances between any two vectors; NaN, not 0, on the diagonal."""
        at = {
            "shots": self._shots(shots),
            "layer": check_layer(layer, len(self.layers)),
            "form": _form(form),
        }
        row = self.data["distance"].sel(at)
        table = squareform(row.values.astype(float), checks=False)
        np.fill_diagonal(table, np.nan)
        return table

    def pairs(self, task: str | None = None, other: str | None = None) -> Bool[np.ndarray, "n n"]:
        """A mask of the pairs of vectors that count; a vector never counts with itself.

        Args:
            task: the first vector's task.
            other: None for pairs within the task; another task, or `"other"` for all others, for
                pairs between tasks.
        """
        names = np.array(self.tasks)[self.labels]
        for name in {task, other} - {None, "other"}:
            choose(str(name), self.tasks, "task")
        first = np.ones(len(names), bool) if task is None else names == task
        second = np.ones(len(names), bool) if other in (None, "other") else names == other
        same = names[:, None] == names
        counted = first[:, None] & second & (same if other is None else ~same)
        return np.triu(counted | counted.T, k=1)

    def distances(
        self,
        task: str | None = None,
        other: str | None = None,
        shots: int | None = None,
        layers: Sequence[int] | None = None,
        form: str = "raw",
    ) -> Estimates:
        """Mean distance at every layer, with 95 % intervals over vectors (not over pairs).

        Without `other`, within the task; else to that task, or to all others (`"other"`).
        """
        at = self.layers if layers is None else layers
        squares = np.stack([self.square(layer, shots, form) for layer in at])
        seed = self.provenance["seed"]
        return pair_means(squares, self.pairs(task, other), self.labels, seed)

    def pairs_of_tasks(self, layer: int | None = None, shots: int | None = None) -> pd.DataFrame:
        """One row per pair of tasks, the nearest first.

        Columns: `distance`, the mean centred distance between the two tasks' vectors, with its
        interval; `cosine` between the two tasks' mean vectors after the mean of all tasks is
        subtracted (corrected for noise within a task); `p`, the probability that the most similar
        pair of as many unrelated tasks, with the measured spectrum and lengths, is at least as
        similar (so it is corrected for the number of pairs, see
        `icl_mech.stats.nearer_than_chance`); `n_tasks`.
        """
        at = self._at(layer)
        gram = self._gram(at, shots)
        away = np.eye(len(gram)) - 1 / len(gram)
        centred = away @ gram @ away
        # Noise can bring a squared length to 0 or below: then there is no direction.
        squared = centred.diagonal()
        length = np.sqrt(np.where(squared > 0, squared, np.nan))
        p = nearer_than_chance(gram, self.provenance["seed"])
        rows = []
        for i, one in enumerate(self.tasks):
            for j, other in enumerate(self.tasks[i + 1 :], i + 1):
                distance = self.distances(one, other, shots, [at], "centred").at(0)
                row = {"one": one, "other": other, **distance.columns("distance")}
                row |= {"cosine": centred[i, j] / (length[i] * length[j]), "p": p[i, j]}
                rows.append(row | {"n_tasks": len(self.tasks)})
        return pd.DataFrame(rows).set_index(["one", "other"]).sort_values("distance")

    def _gram(self, layer: int, shots: int | None) -> Float[np.ndarray, "task task"]:
        """Inner products of the tasks' mean vectors, from pairs of different vectors only."""
        norm = self.data["norm"].sel(shots=self._shots(shots), layer=layer)
        lengths = norm.transpose("task", "vector").values.astype(float).ravel()
        products = (1 - self.square(layer, shots)) * np.outer(lengths, lengths)
        n, size = len(self.tasks), self.data.sizes["vector"]
        return known_mean(products.reshape(n, size, n, size), axis=(1, 3))

    def silhouettes(
        self, layer: int, shots: int | None = None, form: str = "raw"
    ) -> Float[np.ndarray, "task vector"]:
        """The silhouette coefficient of every vector (-1 to 1; 1: far from all other tasks).

        (b - a) / max(a, b), with a the mean distance to the other vectors of its task and b that to
        the vectors of the nearest other task (Rousseeuw 1987, by scikit-learn).
        """
        table = self.square(layer, shots, form)
        np.fill_diagonal(table, 0)  # scikit-learn leaves it out
        if np.isnan(table).any():  # a vector without direction
            return np.full((len(self.tasks), self.data.sizes["vector"]), np.nan)
        found = silhouette_samples(np.clip(table, 0, None), self.labels, metric="precomputed")
        return found.reshape(len(self.tasks), -1)

    def separation(
        self,
        task: str | None = None,
        shots: int | None = None,
        layers: Sequence[int] | None = None,
        form: str = "raw",
    ) -> Estimates:
        """Mean silhouette at every layer, with 95 % intervals over vectors.

        Each vector keeps its coefficient: the vectors that it is compared with are not resampled.
        """
        at = self.layers if layers is None else layers
        found = np.stack([self.silhouettes(layer, shots, form) for layer in at], axis=-1)
        return means(found[self._index(task)].reshape(-1, len(at)), self.provenance["seed"])

    def accuracy(
        self, task: str | None = None, kind: str = "theta", shots: int | None = None
    ) -> list[Estimate]:
        """Zero-shot accuracy with a vector injected, by layer; intervals are over queries."""
        choose(kind, KINDS, "kind")
        right = self.data["right"].sel(shots=self._shots(shots), kind=kind)
        return self._shares(right.transpose("layer", "task", "vector").values, task)

    def baseline(self, task: str | None = None) -> Estimate:
        """Zero-shot accuracy without a vector."""
        return self._shares(self.data["baseline_right"].values[None], task)[0]

    def _shares(self, right: Bool[np.ndarray, "row task vector"], task: str | None) -> list:
        at = self._index(task)
        right = right[:, at].reshape(len(right), -1)
        return shares(right, self._queries("query", at), self.provenance["seed"])

    def best_layer(self, task: str | None = None) -> int:
        """The layer with the best accuracy on dev vectors (see `choose_layer`).

        If no layer is clearly the best, there is still one, and `caveats` says so.
        """
        return self.layers[self.choice(task).at]

    def choice(self, task: str | None = None) -> Choice:
        """The layer that is best on dev vectors, and whether accuracy rises above noise."""
        at = self._index(task)

        def rows(name: str) -> np.ndarray:
            found: np.ndarray = self.data[name].transpose("task", "dev_vector", "layer").values
            return found[at].reshape(-1, len(self.layers))

        logprob = rows("dev_logprob") if "dev_logprob" in self.data else None  # older files lack it
        return choose_layer(rows("dev_right"), logprob, self._queries("dev_query", at))

    def controls(
        self,
        name: str,
        task: str | None = None,
        shots: int | None = None,
        form: str = "raw",
    ) -> Estimates:
        """Mean distance of theta to a control at every layer, with intervals over vectors.

        Args:
            name: `"shuffled"` (theta from the same demonstrations with shuffled labels; NaN with
                one shot) or `"random"` (a random direction; raw, with the most shots).
        """
        choose(name, ("shuffled", "random"), "control")
        found = self.data[f"{name}_distance"]
        if name == "shuffled":
            n = self._shots(shots)
            found = found.sel(shots=n, form=_form(form))
            found = found if n > 1 else found * np.nan
        values = found.transpose("task", "vector", "layer").values[self._index(task)]
        return means(values.reshape(-1, len(self.layers)), self.provenance["seed"])

    def projection(
        self,
        method: str = "pca",
        layer: int | None = None,
        shots: int | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Every vector in the plane, one row each; `.attrs["axes"]` names the axes.

        Args:
            method: `"pca"`, `"tsne"` or `"umap"` (see `icl_mech.stats.projection`).
            seed: of t-SNE and UMAP; by default the result's own.
        """
        table = np.nan_to_num(self.square(self._at(layer), shots), nan=0.0)
        points, axes = project(table, method, self.provenance["seed"] if seed is None else seed)
        names = np.array(self.tasks)[self.labels]
        number = np.tile(np.arange(self.data.sizes["vector"]), len(self.tasks))
        frame = pd.DataFrame(
            {"task": names, "vector": number, "x": points[:, 0], "y": points[:, 1]}
        )
        frame.attrs["axes"] = axes
        return frame

    def summary(self, layer: int | None = None, shots: int | None = None) -> pd.DataFrame:
        """Distances, separation and accuracy: one row per task, then one over all."""
        return self._quoted(self.full_summary(layer, shots))

    def full_summary(self, layer: int | None = None, shots: int | None = None) -> pd.DataFrame:
        """The summary with centred distances, distances to controls, and counts."""
        return full_summary(self, self._at(layer), self._shots(shots))

    def by_shots(self, layer: int | None = None, task: str | None = None) -> pd.DataFrame:
        """The columns of `full_summary` over all tasks, or of one, a row per number of shots."""
        return by_shots(self, self._at(layer), task)

    def to_frame(self) -> pd.DataFrame:
        """One row per (shots, layer, task, vector): mean distances, silhouette, right or wrong."""
        return per_vector(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        return text(self, self.best_layer())

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return super().caveats() + notes(self)

    def finding(
        self,
        layer: int | None = None,
        shots: int | None = None,
        form: str = "raw",
        task: str | None = None,
    ) -> str:
        """Whether vectors lie nearer to those of their own task than to another's.

        They do if the 95 % interval of the mean silhouette lies above 0.
        """
        at = self._at(layer)
        found = self.separation(task, shots, [at], form).at(0)
        vectors = "Task vectors" if task is None else "The task's vectors"
        if not found.low > 0:
            return f"{vectors} are not shown to lie apart by task after block {at}"
        return f"{vectors} lie apart by task after block {at} (silhouette {found.value:.2f})"

    def _draw_task(
        self,
        task: str,
        layer: int | None = None,
        shots: int | None = None,
        method: str = "pca",
        form: str = "raw",
    ) -> go.Figure:
        from icl_mech.variability.plot import variability_figure

        at, n = self._at(layer), self._shots(shots)
        return variability_figure(self, at, n, method, _form(form), task)

    def _draw(
        self,
        layer: int | None = None,
        shots: int | None = None,
        method: str = "pca",
        form: str = "raw",
    ) -> go.Figure:
        """Vectors in the plane (see `projection`), histograms of distances, and curves.

        The plane, the histograms and the comparison of shots are those of `layer`.
        """
        from icl_mech.variability.plot import variability_figure

        return variability_figure(self, self._at(layer), self._shots(shots), method, _form(form))

    def _index(self, task: str | None) -> list[int]:
        names = self.tasks
        return [*range(len(names))] if task is None else [names.index(choose(task, names, "task"))]

    def _queries(self, name: str, at: Sequence[int]) -> np.ndarray:
        """The query of every vector of the tasks `at`; tasks do not share queries."""
        tasks = [self.tasks[i] for i in at]
        return np.array([f"{t}\n{q}" for t in tasks for q in self.of(t)[name].values.tolist()])

    def _at(self, layer: int | None) -> int:
        return self.best_layer() if layer is None else check_layer(layer, len(self.layers))

    def _shots(self, shots: int | None) -> int:
        if shots is None:
            return max(self.shots)
        if shots not in self.shots:
            known = ", ".join(map(str, self.shots))
            raise InputError(f"{shots} shots were not measured; expected one of {known}")
        return shots


def _form(form: str) -> str:
    return choose(form, FORMS, "form")
