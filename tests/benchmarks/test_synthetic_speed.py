"""Training with hooks in place against plain PyTorch, in one run. `make bench` runs it."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from comparing import seconds
from torch import Tensor, nn

from icl_mech.synthetic import preset, train
from icl_mech.synthetic.checkpoints import make_model
from icl_mech.synthetic.data import draw_batch
from icl_mech.synthetic.settings import Settings

N_STEPS, ROUNDS = 100, 5


class PlainBlock(nn.Module):
    """A GPT-2 block without a hook."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, pos, width = x.shape
        qkv = self.qkv(self.ln1(x)).view(n, pos, 3, self.n_heads, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).reshape(n, pos, width))
        return x + self.outer(F.gelu(self.inner(self.ln2(x)), approximate="tanh"))


class Plain(nn.Module):
    """The same model without a hook."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        c, m = settings.model, settings.mixture
        self.read_in = nn.Linear(m.dim + 1, c.d_model)
        self.position = nn.Parameter(torch.zeros(2 * m.n_examples + 1, c.d_model))
        self.blocks = nn.Sequential(*(PlainBlock(c.d_model, c.n_heads) for _ in range(c.n_layers)))
        self.ln_final, self.read_out = nn.LayerNorm(c.d_model), nn.Linear(c.d_model, 1)
        # Both list their parameters in the same order but for the norms; names say which is which.
        names = {".norm.": ".", "attn.": "", "mlp.inner": "inner", "mlp.out": "outer"}
        state = {}
        for name, weight in make_model(settings).state_dict().items():
            for ours, plain in names.items():
                name = name.replace(ours, plain)
            state[name] = weight
        self.load_state_dict(state)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.read_in(tokens) + self.position)
        return self.read_out(self.ln_final(x))[..., 0]


def plain_loop(settings: Settings) -> list[float]:
    """Ten lines of PyTorch on the same data."""
    model, m = Plain(settings), settings.mixture
    adam = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True
    )
    losses = []
    for step in range(settings.n_steps):
        batch = draw_batch(m, settings.batch_size, settings.seed, step)
        tokens = torch.zeros(len(batch), m.n_examples + 1, 2, m.dim + 1)
        tokens[:, :, 0, :-1], tokens[:, :, 1, -1] = batch.xs, batch.ys
        loss = F.mse_loss(model(tokens.flatten(1, 2)[:, :-1])[:, ::2], batch.ys)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("compared", ["small", "paper"])
def test_training_steps_per_second(
    benchmark, tmp_path_factory: pytest.TempPathFactory, compared: str
) -> None:
    """Losses are the same; ours pays for hooks, losses by basis, checks and checkpoints too."""
    n_steps = N_STEPS if compared == "small" else 2
    settings = preset(
        compared, n_steps=n_steps, curriculum_steps=0, warmup_steps=0, schedule="constant"
    )

    def fresh() -> Path:
        return tmp_path_factory.mktemp("run")

    def ours() -> list[float]:
        return train(
            settings, fresh(), device="cpu", n_log=0, n_regular=0, progress=False
        ).loss.tolist()

    def plain() -> list[float]:
        return plain_loop(settings)

    assert ours() == pytest.approx(plain(), rel=1e-3)
    rate = steps_per_second(n_steps, plain, ours)
    benchmark.extra_info.update(rate)
    benchmark.pedantic(ours, rounds=1)
    print(f"\n{compared}: " + ", ".join(f"{name} {value:.2f}" for name, value in rate.items()))
    assert rate["ratio"] >= 0.9


def steps_per_second(
    n_steps: int, plain: Callable[[], object], ours: Callable[[], object]
) -> dict[str, float]:
    """Both in turn; the ratio is the median of the pairs', so that a busy machine hits both."""
    pairs = [(seconds(plain), seconds(ours)) for _ in range(ROUNDS)]
    plain_time, our_time = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "plain steps/s": n_steps / plain_time,
        "our steps/s": n_steps / our_time,
        "ratio": statistics.median(p / o for p, o in pairs),
    }
