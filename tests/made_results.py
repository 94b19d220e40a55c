"""Results made up of known numbers, for tests of what is shown of them."""

import numpy as np
import xarray as xr

from icl_mech.patch import REFERENCES, VECTORS, LayerScan

N_LAYERS, N_PROMPTS, N_DEV = 6, 20, 10
DRAWN = {
    "top": "i8",
    "first_token": "bool",
    "two_way_prefix": "bool",
    "logprob": "f4",
    "rank": "i8",
}


def scan_of(*tasks: str) -> LayerScan:
    """A scan with drawn numbers: theta right where the layer is 3 or 4."""
    rng = np.random.default_rng(0)

    def drawn(prefix: str, *dims: str) -> dict[str, tuple]:
        sizes = {
            "task": len(tasks),
            "prompt": N_PROMPTS,
            "dev_prompt": N_DEV,
            "vector": 4,
            "layer": N_LAYERS,
            "reference": 2,
        }
        shape = tuple(sizes[d] for d in dims)
        return {
            prefix + name: (dims, rng.integers(0, 2, shape).astype(kind))
            for name, kind in DRAWN.items()
        }

    variables = {
        **drawn("", "task", "prompt", "vector", "layer"),
        **drawn("reference_", "task", "reference", "prompt"),
        **drawn("dev_", "task", "dev_prompt", "layer"),
        "measured": (("task", "vector", "layer"), np.ones((len(tasks), 4, N_LAYERS), bool)),
        "prior_right": (("task", "prompt"), np.zeros((len(tasks), N_PROMPTS), bool)),
        "query": (("task", "prompt"), [[f"x{i}" for i in range(N_PROMPTS)]] * len(tasks)),
        "answer": (("task", "prompt"), np.full((len(tasks), N_PROMPTS), "y")),
        "dev_query": (("task", "dev_prompt"), np.full((len(tasks), N_DEV), "z")),
        "prior_answer": ("task", ["y"] * len(tasks)),
        "collisions": ("task", [0] * len(tasks)),
        "n_queries": ("task", [N_PROMPTS] * len(tasks)),
    }
    data = xr.Dataset(
        variables,
        coords={
            "task": list(tasks),
            "vector": list(VECTORS),
            "reference": list(REFERENCES),
            "layer": np.arange(N_LAYERS),
        },
    )
    right = np.isin(np.arange(N_LAYERS), [3, 4])
    data["first_token"].loc[{"vector": "theta"}] = right
    data["dev_first_token"][:] = right
    return LayerScan(data, {"model": "<b>m</b>", "n_shots": 5, "seed": 0})
