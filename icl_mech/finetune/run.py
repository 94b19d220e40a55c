"""Finetuning on the prompts of a family, with adapters on some blocks (Han et al. 2024)."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import icl_mech
from icl_mech.devices import pick_device
from icl_mech.errors import InputError, shown
from icl_mech.files import check_same
from icl_mech.finetune.files import LAST, make_folder, read_last
from icl_mech.finetune.plan import FinetuneSettings, Plan, chosen_blocks, plan
from icl_mech.finetune.result import Finetuning
from icl_mech.finetune.training import CLIP, KEEP_EVERY, Trainer
from icl_mech.model import load_tuned, outline
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, HELD_OUT_SHARE
from icl_mech.tasks import Tasks
from icl_mech.tasks.text import as_path

_LIBRARIES = ("peft", "transformers", "torch")
#: Updates whose mean loss the progress bar shows.
_RECENT = 20


def finetune(
    source: str | Path = "gemma-3-270m",
    tasks: Tasks = "pos",
    n_prompts: int = 25,
    n_shots: int = 4,
    seed: int = 0,
    *,
    folder: str | Path,
    blocks: str = "first",
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.1,
    targets: str | Sequence[str] = ("attention", "mlp"),
    n_steps: int = 200,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    warmup_steps: int = 10,
    n_checkpoints: int = 8,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    sink: str | int | None = None,
    progress: bool = True,
) -> Finetuning:
    """Train adapters on some blocks of a model, on few-shot prompts of all tasks of a family.

    Han et al. 2024 (arXiv 2412.12276, section on finetuning): if the first blocks encode the task
    and the last ones decode it, tuning the first ones should raise decodability and accuracy, and
    tuning the last ones should not raise decodability. They train LoRA adapters (rank 16, alpha 16,
    dropout .1) on the first or the last 10 blocks, one model per family, on 10,000 samples, with
    the loss on the answer only. The paper does not state the linear maps, the learning rate and the
    batches.

    Here: AdamW without weight decay, a constant rate after a short warm-up, gradients clipped to
    norm 1, float32. The loss is the cross-entropy of the tokens of the first accepted answer
    (teacher-forced; the mean over its tokens, then over prompts). Every update draws fresh prompts,
    the tasks in turn. A fifth of the inputs is held out and is never a query or a demonstration in
    training. The thirds of a model have the same number of blocks, so every arm trains the same
    number of weights for the same number of updates.

    If a run was killed, the same call resumes it and gives the same numbers, bit for bit (on a CPU
    with the same number of threads). Checkpoints are adapters in peft's format. `list_adapters`
    lists them, and `load_model(source, adapter=...)` loads one for any other question.

    Args:
        source: a model's name or folder, as `load_model` takes it (no loaded model, no bridge).
        tasks: a family or its name; or a list of tasks and names. A family's null task is left out.
        n_prompts: held-out prompts per task, asked at every checkpoint.
        n_shots: demonstrations per prompt.
        seed: of adapters, prompts and dropout.
        folder: for checkpoints; made if it is not there.
        blocks: `"first"`, `"middle"` or `"last"` third, `"all"`, or `"a:b"`: from a to before b.
        rank, alpha, dropout: of LoRA.
        targets: `"attention"`, `"mlp"`, or names of linear maps in the model (`"q_proj"`).
        n_steps: updates.
        batch_size: prompts per update, at least one of every task.
        learning_rate: of AdamW.
        warmup_steps: updates over which the rate rises to `learning_rate`.
        n_checkpoints: how many, with the start and the end.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens over all tasks' answers.
        instruction: a line before the demonstrations, as in the other questions.
        device: by default the first of cuda, mps and cpu that is there.
        trust_remote_code, sink: as in `load_model`.
        progress: show a bar, with the mean loss of the last updates.

    Raises:
        InputError: where a name or number cannot work, the folder holds another run or cannot be
            written, or a prompt is longer than the model's context. Nearly all of these are raised
            before the model's weights are read.
        ModelError: where a file is damaged.
        NotFiniteError: where the loss is no longer finite, naming the step. The last good
            checkpoint stays.

    Example:
        >>> import tempfile
        >>> tuned = icl_mech.finetune(
        ...     "gemma-3-270m", "letters", n_prompts=2, n_shots=1, folder=tempfile.mkdtemp(),
        ...     blocks="17:18", n_steps=1, batch_size=3, progress=False,
        ... )
        >>> tuned.steps, tuned.tasks[0]
        ([0, 1], 'letters/next')
    """
    settings = FinetuneSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
        blocks=blocks,
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        n_steps=n_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        n_checkpoints=n_checkpoints,
    )
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source is {shown(source)} ({type(source).__name__}); expected a model's name or "
            "folder: what is trained is loaded anew, without a bridge round it"
        )
    return measure(
        source,
        plan(tasks, settings),
        folder,
        progress,
        device=device,
        trust_remote_code=trust_remote_code,
        sink=sink,
    )


def measure(
    source: str | Path,
    plan: Plan,
    folder: str | Path,
    progress: bool = True,
    *,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    sink: str | int | None = None,
) -> Finetuning:
    """Run a plan, as `finetune` does after it has drawn the held-out prompts.

    Raises:
        InputError, ModelError, NotFiniteError: as `finetune`.
    """
    folder = as_path("the folder of a finetuning", folder).expanduser()
    s, where = plan.settings, pick_device(device)
    if folder.is_dir() and (last := read_last(folder)) is not None:
        check_same(folder, last.run, plan.identity())
    found = outline(source, trust_remote_code)
    layers, targets = chosen_blocks(s.blocks, found.n_layers), found.choose(s.targets)
    make_folder(folder)
    tuned = load_tuned(
        found,
        layers,
        targets,
        rank=s.rank,
        alpha=s.alpha,
        dropout=s.dropout,
        seed=s.dropout_seed(-1),
        device=where,
        trust_remote_code=trust_remote_code,
        sink=sink,
    )
    trainer = Trainer(plan, tuned, folder)
    trainer.begin()
    _train(trainer, progress)
    return _result(trainer)


def _train(trainer: Trainer, progress: bool) -> None:
    """Run the remaining updates, with checkpoints."""
    s = trainer.settings
    keep = set(s.checkpoints())
    if trainer.step in keep and trainer.step not in trainer.curve.steps:
        trainer.checkpoint()
    with progress_bar(s.n_steps, "updates", progress) as bar:
        bar.update(trainer.step)
        while trainer.step < s.n_steps:
            trainer.update()
            if trainer.step in keep:
                trainer.checkpoint()
            elif trainer.step % KEEP_EVERY == 0:
                trainer.keep()
            recent = float(np.mean(trainer.loss[-_RECENT:]))
            bar.set_postfix_str(f"loss {recent:.3f}", refresh=False)
            bar.update(1)


def _result(trainer: Trainer) -> Finetuning:
    plan, curve = trainer.plan, trainer.curve
    asked = [(row, test) for row, test in zip(plan.cut.test, trainer.test, strict=True)]
    data = xr.Dataset(
        {
            "loss": (("step", "task", "prompt"), np.stack(curve.loss).astype(np.float32)),
            "right": (("step", "task", "prompt"), np.stack(curve.right)),
            "train_loss": ("update", np.array(trainer.loss)),
            "query": (("task", "prompt"), [[e.query.x for e in row] for row, _ in asked]),
            "answer": (("task", "prompt"), [[e.query.y for e in row] for row, _ in asked]),
            "answer_tokens": (
                ("task", "prompt"),
                [[len(answers[0]) for answers in test.answers] for _, test in asked],
            ),
            "n_queries": ("task", list(plan.cut.n_queries)),
        },
        coords={
            "step": curve.steps,
            "task": plan.pool.names,
            "update": np.arange(1, len(trainer.loss) + 1),
        },
    )
    return Finetuning(data, _provenance(trainer))


def _provenance(trainer: Trainer) -> dict[str, Any]:
    plan, tuned, s = trainer.plan, trainer.tuned, trainer.settings
    return {
        "method": "finetune (Han et al. 2024, arXiv 2412.12276)",
        "model": tuned.name,
        "base_hash": tuned.base_hash,
        "dtype": "float32",
        "device": str(tuned.device),
        **s.recorded(),
        "tasks": {
            t.name: {"category": t.category, "n_pairs": len(t), "description": t.description}
            for t in plan.pool.tasks
        },
        "trained_blocks": list(tuned.layers),
        "trained_maps": list(tuned.targets),
        "n_blocks": tuned.outline.n_layers,
        "n_trainable_weights": tuned.n_trainable,
        "optimiser": f"AdamW without weight decay, gradients clipped to norm {CLIP:g}",
        "held_out_share": HELD_OUT_SHARE,
        "held_out_inputs": {
            name: [pair.x for pair in pairs]
            for name, pairs in zip(plan.pool.names, plan.cut.held_out, strict=True)
        },
        "sink_token": str(tuned.tokenizer.decode([tuned.sink.token])),
        "sink_reason": tuned.sink.reason,
        "written_with_leading_space": trainer.encoder.template.leading_space,
        "seconds": round(trainer.seconds, 3),
        "folder": trainer.folder.resolve().name,
        "resumes_from": LAST,
        "versions": {
            "icl-mech": icl_mech.__version__,
            **{library: version(library) for library in _LIBRARIES},
        },
    }
