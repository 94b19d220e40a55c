"""Task decodability against the plain way, measured in one run. `make bench` runs it.

The plain way: one full TransformerLens forward per prompt that keeps all activations, then a loop
over points and pairs. It is timed on every tenth prompt and every ninth layer, and scaled up: it
does the same to each. Nothing is asserted about wall time; that both give the same numbers is.
"""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from icl_mech.decodability.measure import measure
from icl_mech.decodability.plan import DecodabilitySettings, plan
from icl_mech.model import HookedModel, load_model

N_POINTS, N_SHOTS, K = 100, 4, 10
PROMPT_SHARE, LAYER_SHARE = 10, 9


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return load_model("gemma-3-270m", device="cpu")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def test_td_of_six_tasks_at_all_layers(benchmark, model: HookedModel) -> None:
    """600 four-shot prompts of the six bitwise tasks, 18 layers."""
    settings = DecodabilitySettings(n_prompts=N_POINTS, n_shots=(N_SHOTS,), k=K)
    drawn = plan("bitwise", settings)
    words = [pair.y for task in drawn.pool.tasks for pair in task.pairs]
    encoder = model.encoder("{x}->{y}", words)
    prompts = [
        encoder.encode(e.demonstrations, e.query.x) for row in drawn.points.episodes for e in row
    ]
    found: dict[str, np.ndarray] = {}

    def captured() -> None:
        found["rows"] = model.capture(prompts, ["final_arrow"])[:, 0].numpy()

    def voted() -> None:
        found["credit"] = measure(found["rows"], drawn)["credit"].values

    def ours() -> None:
        captured()
        voted()

    @torch.inference_mode()
    def forwards() -> torch.Tensor:
        rows = []
        for prompt in prompts[::PROMPT_SHARE]:
            _, cache = model.bridge.run_with_cache(torch.tensor([prompt.tokens]))
            layers = range(model.n_layers)
            rows.append(torch.stack([cache[f"blocks.{x}.hook_resid_post"][0, -1] for x in layers]))
        return torch.stack(rows)

    def loop() -> np.ndarray:
        credits = []
        for layer in range(0, model.n_layers, LAYER_SHARE):
            points = found["rows"][:, layer].astype(np.float64)
            points = points / np.linalg.norm(points, axis=1, keepdims=True)
            credits.append(_loop(points, drawn.labels, drawn.groups))
        return np.array(credits)

    benchmark.pedantic(ours, rounds=1)
    our_time = benchmark.stats.stats.median
    plain_rows: list[torch.Tensor] = []
    plain_credit: list[np.ndarray] = []
    forward_time = seconds(lambda: plain_rows.append(forwards())) * PROMPT_SHARE
    loop_time = seconds(lambda: plain_credit.append(loop())) * LAYER_SHARE
    vote_time = seconds(voted)
    np.testing.assert_allclose(
        found["rows"][::PROMPT_SHARE], plain_rows[0].numpy(), rtol=1e-3, atol=0.05
    )
    expected = plain_credit[0]
    np.testing.assert_allclose(
        found["credit"][::LAYER_SHARE].reshape(expected.shape), expected, atol=1e-6
    )
    plain_time = forward_time + loop_time
    benchmark.extra_info.update(plain_s=plain_time, ours_s=our_time, ratio=plain_time / our_time)
    tokens = sum(map(len, prompts)) / len(prompts)
    print(
        f"\nTD of {len(prompts)} prompts of {tokens:.0f} tokens, {model.n_layers} layers: plain "
        f"{plain_time:.0f} s (scaled up), ours {our_time:.1f} s: {plain_time / our_time:.1f} times "
        f"faster; the forwards {forward_time / (our_time - vote_time):.1f} times, the votes alone "
        f"({vote_time:.2f} s) {loop_time / vote_time:.0f} times"
    )


def _loop(points: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[float]:
    """Cosine distance to every allowed other point, sorted; majority vote; ties share."""
    found = []
    for i, point in enumerate(points):
        far = sorted(
            (1 - float(point @ other), j)
            for j, other in enumerate(points)
            if groups[j] != groups[i]
        )
        votes = Counter(int(labels[j]) for _, j in far[:K])
        best = [label for label, n in votes.items() if n == max(votes.values())]
        found.append((int(labels[i]) in best) / len(best))
    return found
