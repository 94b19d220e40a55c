"""What a head attribution found."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.results import Result
from icl_mech.stats import Estimate, mean


class HeadAttribution(Result):
    """Effect of every attention head, per prompt.

    `data` holds `effect` over (`task`, `prompt`, `layer`, `head`): the change in the probability
    of the answer; and per (`task`, `prompt`) the probability with shuffled and with right labels.
    """

    def estimates(self, task: str) -> list[list[Estimate]]:
        """AIE of every head, `[layer][head]`, with bootstrap intervals over prompts."""
        choose(task, self.tasks, "task")
        effect = self.data["effect"].sel(task=task).transpose("layer", "head", "prompt").values
        return [[mean(head) for head in layer] for layer in effect]

    def top(self, task: str, k: int = 10) -> list[tuple[int, int, Estimate]]:
        """The `k` heads with the largest AIE: (layer, head, AIE)."""
        estimates = self.estimates(task)
        ranked = [
            (layer, head, estimate)
            for layer, row in enumerate(estimates)
            for head, estimate in enumerate(row)
        ]
        return sorted(ranked, key=lambda item: -item[2].value)[:k]

    def summary(self, k: int = 10) -> pd.DataFrame:
        """The top `k` heads of every task, with their AIE and its 95 % interval."""
        rows = [
            {
                "task": task,
                "rank": rank,
                "layer": layer,
                "head": head,
                "aie": aie.value,
                "aie_low": aie.low,
                "aie_high": aie.high,
                "n_prompts": aie.n,
            }
            for task in self.tasks
            for rank, (layer, head, aie) in enumerate(self.top(task, k), 1)
        ]
        return pd.DataFrame(rows).set_index(["task", "rank"])

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, layer, head)."""
        return self.data.to_dataframe().reset_index()

    def plot(self) -> go.Figure:
        """AIE of every head: a map of layers x heads per task."""
        from icl_mech.figures import head_figure

        return head_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            of_task = self.data.sel(task=task)
            heads = ", ".join(f"{x}.{h} ({e.value:+.3f})" for x, h, e in self.top(task, 5))
            rows[task] = {
                "p(answer), right labels": f"{float(of_task['clean_probability'].mean()):.2f}",
                "shuffled labels": f"{float(of_task['shuffled_probability'].mean()):.2f}",
                "top heads (AIE)": heads,
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        text = self.table().to_string(max_colwidth=None)
        return f"HeadAttribution on {self.provenance['model']}\n{text}"

    def _repr_html_(self) -> str:
        model = escape(str(self.provenance["model"]))
        return f"<p>Head attribution on <b>{model}</b></p>{self.table().to_html(escape=True)}"
