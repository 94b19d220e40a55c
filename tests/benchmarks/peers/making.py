"""Makes the work: prompts, answers, vectors."""

from pathlib import Path

import torch
from work import N_PROMPTS, Work

from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder, Prompt, draw_split, shuffle_labels
from icl_mech.tasks import load_task
from icl_mech.tasks.seeds import generator

TASK, N_SHOTS = "country_capital", {"inject": 5, "heads": 10, "lens": 5, "stream": 5}


def drawn(
    encoder: Encoder, n_shots: int, n: int, shuffled: bool = False
) -> tuple[list[Prompt], list[int]]:
    """`n` prompts of one length, the most frequent one, and the first tokens of their answers."""
    rng = generator(0, TASK, "peers")
    split = draw_split(load_task(TASK), 400, 1, n_shots, 2, seed=0)
    made = []
    for episode in split.test:
        shots = episode.demonstrations
        shots = shuffle_labels(shots, rng) if shuffled else shots
        prompt = encoder.encode(shots, episode.query.x)
        made.append((prompt, encoder.first_tokens(prompt, [episode.query.y])[0]))
    lengths = [len(prompt) for prompt, _ in made]
    length = max(set(lengths), key=lengths.count)
    kept = [pair for pair in made if len(pair[0]) == length][:n]
    return [prompt for prompt, _ in kept], [answer for _, answer in kept]


def make(model: HookedModel, task: str, n_prompts: int | None = None) -> Work:
    """The work of one task."""
    encoder = model.encoder("{x}->{y}", [pair.y for pair in load_task(TASK).pairs])
    n, n_shots = n_prompts or N_PROMPTS[task], N_SHOTS[task]
    prompts, answers = drawn(encoder, n_shots, n, shuffled=task == "heads")
    vectors = torch.empty(0)
    if task == "inject":
        # From other prompts than those that are edited.
        others = drawn(encoder, n_shots, 2 * n)[0][n:]
        vectors = model.capture(others, [-1])[:, 0].mean(0)
    elif task == "heads":
        clean = drawn(encoder, n_shots, n)[0]
        vectors = model.capture(clean, [-1], "z")[:, 0].mean(0)
    tokens = torch.tensor([prompt.tokens for prompt in prompts])
    return Work(tokens, torch.tensor(answers), vectors)


def write_all(model: HookedModel, folder: Path) -> dict[str, Path]:
    """The work of every task, each in its file."""
    paths = {task: folder / f"{task}.safetensors" for task in N_PROMPTS}
    for task, path in paths.items():
        make(model, task).save(path)
    return paths
