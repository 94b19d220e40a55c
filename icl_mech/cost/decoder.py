"""Engine calls of the search for the heads and MLPs that decode a task vector."""

from collections.abc import Sequence

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.heads import effects
from icl_mech.cost.patching import after_each

#: The relative depth at which θ is written.
_WRITTEN = 0.5
#: Sizes of the sets of components that are set back together, and the number of sets of each size:
#: the ranked one, random ones, and all components but the ranked ones.
_SIZES, _SETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), 10


def decoder(engine: CountedEngine, a: Asked) -> None:
    """Count `find_decoder` for one task, with gradients."""
    n, n_layers = a.n_prompts, engine.sizes.n_layers
    engine.groups(n + a.n_dev, 1 + a.n_dummies, a.demonstrations, a.per_query)
    engine.evaluate(a.n_dev, a.zero_shot, after_each(engine))
    later = range(min(int(_WRITTEN * n_layers), n_layers - 2) + 1, n_layers)
    for length in (a.zero_shot, a.few_shot):
        _setting(engine, n, length, later)
    effects(engine, n, a)


def _setting(engine: CountedEngine, n: int, length: int, later: Sequence[int]) -> None:
    """Count prompts of one length: θ, and all heads and MLPs of later blocks."""
    written, last = Edited(1, later[0]), Edited(1, engine.sizes.n_layers)
    engine.evaluate(n, length, [last, written, last])  # without θ, with it, past all components
    for patterns in (False, False, True):  # outputs without θ, outputs with it, attention
        for _ in range(2):  # heads and MLPs, or attention without θ and with it
            engine.observe(n, length, patterns)
    engine.observe(n, length)  # the change that θ makes
    at_own = [Edited(1, layer) for layer in later for _ in range(engine.sizes.n_heads + 1)]
    necessity = [written] * len(at_own)
    engine.evaluate(n, length, necessity + at_own * 2)  # sufficiency and direct effects
    # Two branches, with θ and without it, are differentiated once.
    engine.gradients(n, length, written, 2, 1)
    for _ in later:
        for _ in ("heads", "MLP"):  # in each run, only these see the change that θ makes
            engine.observe(n, length)
    sizes = [size for size in _SIZES if size < len(at_own)]
    engine.evaluate(n, length, [written] * (_SETS * len(sizes)))
