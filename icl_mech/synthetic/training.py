"""Training on the mean squared error of all predictions of y, with fresh sequences each time."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.devices import pick_device
from icl_mech.errors import ModelError, NotFiniteError
from icl_mech.files import check_same
from icl_mech.progress import progress_bar
from icl_mech.synthetic.checkpoints import (
    LAST,
    Checkpoint,
    checkpoint_steps,
    load_checkpoint,
    make_model,
    save_checkpoint,
    step_path,
)
from icl_mech.synthetic.data import draw_batch
from icl_mech.synthetic.memory import check_memory
from icl_mech.synthetic.model import RegressionTransformer
from icl_mech.synthetic.settings import Settings, to_json
from icl_mech.training_runs import ADAM, under

#: Updates between two checks that the losses are finite; each check makes a GPU wait.
LOOK_EVERY = 20


@dataclass(frozen=True)
class Training:
    """A finished run.

    Attributes:
        model: after the last update.
        settings: of the run.
        folder: with its checkpoints.
        loss: mean squared error of each update's batch, before the update.
        basis_loss: the same by basis; NaN where the batch has no sequence of that basis.
    """

    model: RegressionTransformer
    settings: Settings
    folder: Path
    loss: Float[Tensor, "step"]
    basis_loss: Float[Tensor, "step basis"]


def train(
    settings: Settings,
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    compile: bool = False,
    n_log: int = 20,
    n_regular: int = 20,
    progress: bool = True,
) -> Training:
    """Train; a killed run of the same settings and folder continues where it stopped.

    On the same device (on a CPU: with the same number of threads), a run that was killed and
    resumed gives bit for bit the same losses as one that was not killed.

    Args:
        settings: what to train, such as `preset("small", seed=1)`.
        folder: for checkpoints; made if it is not there.
        device: by default the first of cuda, mps and cpu that is there.
        compile: compile the forward pass (`torch.compile`). It takes a minute, and saves time on a
            GPU.
        n_log, n_regular: how many checkpoints, as in `checkpoint_steps`. The file from which a
            killed run resumes is written at the same steps.
        progress: show a bar, with the loss of each basis.

    Raises:
        InputError: where the folder holds a run of other settings or cannot be written, the disk
            is full, the device is not there, or its memory is too small.
        ModelError: where the checkpoint from which training would resume is damaged.
        NotFiniteError: where the loss is no longer finite, with the step. The last good checkpoint
            is kept.

    Example:
        >>> import tempfile
        >>> from icl_mech.synthetic import preset
        >>> trained = train(preset("tiny", n_steps=4), tempfile.mkdtemp(), progress=False)
        >>> trained.basis_loss.shape[0]
        4
    """
    folder, where = Path(folder), pick_device(device)
    check_memory(settings, where)
    run = _Run(settings, folder, where, compile)
    run.begin()
    keep = set(checkpoint_steps(settings.n_steps, n_log, n_regular))
    if run.step == 0:
        run.keep()
    with progress_bar(settings.n_steps, "updates", progress) as bar:
        bar.update(run.step)
        while run.step < settings.n_steps:
            run.update()
            if run.step % LOOK_EVERY == 0 or run.step in keep:
                run.look()
                bar.set_postfix_str(run.recent(), refresh=False)
                bar.update(run.step - bar.n)
            if run.step in keep:
                run.keep()
    return Training(run.model.eval(), settings, folder, run.loss.cpu(), run.basis_loss.cpu())


class _Run:
    """Model, optimiser and losses, a step at a time."""

    def __init__(
        self, settings: Settings, folder: Path, device: torch.device, compile: bool
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.model = make_model(settings).to(device)
        # The compiled module shares its weights with the plain one, which can have hooks.
        self.forward = torch.compile(self.model) if compile else self.model
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self.step = self.good = 0
        n, k = settings.n_steps, settings.mixture.n_bases
        self.loss = torch.full((n,), torch.nan, device=device)
        self.basis_loss = torch.full((n, k), torch.nan, device=device)

    def update(self) -> None:
        """One batch, one step of Adam."""
        s = self.settings
        batch = draw_batch(
            s.mixture, s.batch_size, s.seed, self.step, weight_mean=s.weight_mean(self.step)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            read_out = self.forward(self.model.tokens(batch.xs, batch.ys))[:, ::2]
        errors = (read_out.float() - batch.ys.to(self.device)).square().mean(1)
        loss = errors.mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate(self.step)
        self.optimiser.step()
        basis, errors = batch.basis.to(self.device), errors.detach()
        sums = torch.zeros_like(self.basis_loss[0]).index_add_(0, basis, errors)
        counts = torch.zeros_like(sums).index_add_(0, basis, torch.ones_like(errors))
        self.loss[self.step] = loss.detach()
        self.basis_loss[self.step] = sums / counts
        self.step += 1

    def look(self) -> None:
        """Stop if a loss since the last check is not finite.

        Raises:
            NotFiniteError: naming the first such step.
        """
        since = max(0, self.step - LOOK_EVERY)
        bad = (~self.loss[since : self.step].isfinite()).nonzero()
        if len(bad):
            self._diverged(since + int(bad[0]))

    def _diverged(self, step: int) -> None:
        raise NotFiniteError(
            f"training diverged: the loss is not finite at step {step} (learning rate "
            f"{self.settings.rate(step):.3g}); expected numbers. The last good checkpoint, step "
            f"{self.good}, is kept in {self.folder}. Try a smaller learning rate or more warm-up, "
            "in another folder"
        )

    def keep(self) -> None:
        """Write the weights, and the file from which a killed run resumes."""
        if not all(p.isfinite().all() for p in self.model.parameters()):
            self._diverged(self.step)
        checkpoint = Checkpoint(self.step, self.settings, self.model.state_dict(), {})
        save_checkpoint(step_path(self.folder, self.step), checkpoint)
        extra = {"loss": self.loss[: self.step], "basis_loss": self.basis_loss[: self.step]}
        for name, parameter in self.model.named_parameters():
            state = self.optimiser.state[parameter]
            extra |= {f"{key}/{name}": state[key] for key in ADAM if key in state}
        last = Checkpoint(self.step, self.settings, checkpoint.weights, extra)
        save_checkpoint(self.folder / LAST, last)
        self.good = self.step

    def begin(self) -> None:
        """Load weights, optimiser and losses of the run in the folder, if there is one.

        Raises:
            InputError: where the folder's run has other settings.
        """
        for path in sorted(self.folder.glob("step_*.safetensors"))[:1]:
            check_same(path, to_json(load_checkpoint(path).settings), to_json(self.settings))
        path = self.folder / LAST
        if not path.exists():
            return
        last = load_checkpoint(path)
        check_same(path, to_json(last.settings), to_json(self.settings))
        self._check_last(path, last)
        self.model.load_state_dict(last.weights)
        self.step = self.good = last.step
        self.loss[: self.step] = last.extra["loss"].to(self.device)
        self.basis_loss[: self.step] = last.extra["basis_loss"].to(self.device)
        stored = {key: under(last.extra, key) for key in ADAM}
        for name, parameter in self.model.named_parameters():
            if name in stored["step"]:
                self.optimiser.state[parameter] = {
                    key: stored[key][name].to(self.device) for key in ADAM
                }

    def _check_last(self, path: Path, last: Checkpoint) -> None:
        """Refuse a file from which training cannot resume, such as a copy of a step's weights.

        Raises:
            ModelError: where losses or the optimiser's state are missing or of other sizes.
        """
        sizes = {"loss": (last.step,), "basis_loss": (last.step, self.settings.mixture.n_bases)}
        if last.step:  # before the first update Adam has no state
            for name, parameter in self.model.named_parameters():
                shape = tuple(parameter.shape)
                sizes |= {f"{key}/{name}": () if key == "step" else shape for key in ADAM}
        wrong = next(
            (n for n, s in sizes.items() if n not in last.extra or tuple(last.extra[n].shape) != s),
            None,
        )
        if wrong is not None:
            raise ModelError(
                f"{path}: damaged ({wrong!r} after {last.step} updates is missing or has another "
                "shape); expected losses and the optimiser's state, which files of single steps "
                "lack. Delete it to train from the start, or choose another folder"
            )

    def recent(self) -> str:
        """The mean loss of each basis over the last updates, for the bar."""
        rows = self.basis_loss[max(0, self.step - LOOK_EVERY) : self.step]
        values = [value for value in rows.nanmean(0).tolist() if not math.isnan(value)]
        return "loss by basis " + " ".join(f"{value:.3f}" for value in values)
