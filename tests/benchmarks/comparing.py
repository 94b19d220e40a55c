"""Timing ours and the plain way in turn."""

import statistics
import time
from collections.abc import Callable

import torch

from icl_mech.prompts import Encoder, Prompt, draw_split
from icl_mech.tasks import load_task

N_LAYERS = 18
TASK = "country_capital"


def seconds(run: Callable[[], object]) -> float:
    """Time of day; on one thread (`OMP_NUM_THREADS=1 make bench`) that of the processor.

    Other work on the machine shows least in the processor's time. Where there are several threads
    it adds them up, waiting ones too.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def report(
    benchmark,
    ours: Callable[[], object],
    plain: Callable[[], object],
    rounds: int,
    share: int = 1,
) -> None:
    """Time both in turn, and note the ratio of medians beside pytest-benchmark's own numbers.

    Where `plain` does only one part in `share` of the work, its time is scaled up.
    """
    ours()
    pairs = [(seconds(plain) * share, seconds(ours)) for _ in range(rounds)]
    plain_time, our_time = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [p / o for p, o in pairs]
    benchmark.extra_info.update(plain_s=plain_time, ours_s=our_time, ratio=plain_time / our_time)
    benchmark.pedantic(ours, rounds=1)
    scaled = f" (scaled up from 1 part in {share})" if share > 1 else ""
    print(
        f"\nplain {plain_time:.2f} s{scaled}, ours {our_time:.2f} s: "
        f"{plain_time / our_time:.1f} times faster (pairs {min(ratios):.1f} to {max(ratios):.1f})"
    )


def same_length_prompts(encoder: Encoder, task: str, n: int, n_shots: int = 5) -> list[Prompt]:
    """Prompts of one length, as TransformerLens's loop needs them."""
    episodes = draw_split(load_task(task), 400, 1, n_shots, 2, seed=0).test
    prompts = [encoder.encode(e.demonstrations, e.query.x) for e in episodes]
    lengths = [len(p) for p in prompts]
    length = max(set(lengths), key=lengths.count)
    return [p for p in prompts if len(p) == length][:n]
