# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Emergence: do task encoding and decoding form together?
#
# Han, Song, Gore and Agrawal (2024), *Emergence and Effectiveness of Task Vectors in In-Context
# Learning: An Encoder-Decoder Perspective*, arXiv 2412.12276, section 3: a small transformer is
# trained on a mixture of sparse linear regressions. Which coordinates matter (the basis) is the
# task; it is never named, and has to be inferred from the examples. Here every checkpoint of
# several runs is measured on held-out sequences: can the basis be decoded from the residual stream
# (encoding), does the prediction use it (performance), and which of the two comes first?
#
# The measurements of the preset `small` come with the repository. `--train` makes them again.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import tyro

import icl_mech
from icl_mech.plotting import check_target, export
from icl_mech.results import load_result
from icl_mech.stats.onset import lead_in_words
from icl_mech.synthetic import measure_emergence, preset, train

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/han_emergence.py --help`); in a notebook,
# change the defaults.

# %%
#: The folder of the measurements, wherever this is started: a notebook has no file of its own.
STARTED = [Path(__file__)] if "__file__" in globals() else [Path.cwd() / "notebook"]
NEAR = [*STARTED[0].parents, Path(icl_mech.__file__).parents[1]]
KEPT = (folder / "analyses" / "data" for folder in NEAR)
DATA = next((folder for folder in KEPT if folder.is_dir()), Path("analyses/data"))
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Task encoding and performance over training, for several seeds."""

    preset: str = "small"
    """Whose runs: small, paper or tiny."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights and data."""
    data: Path = DATA
    """Where measurements are kept, as <preset>-seed<seed>.nc."""
    train: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train and measure, instead of reading what is kept."""
    checkpoints: Path = FIGURES
    """--train: for the runs' folders; a killed run goes on where it stopped."""
    device: str | None = None
    """--train: cuda, mps or cpu; by default the first that is there."""
    n_per_basis: int = 100
    """--train: held-out sequences per basis."""
    n_probe: int = 1000
    """--train: other sequences per basis, from which a probe reads W."""
    out: Path = FIGURES / "han_emergence.html"
    """The figure over all seeds; those of the first get a suffix (-training, -points,
    -perturbation, -heads)."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## The runs


# %%
def measured(seed: int) -> Path:
    """Where the measurements of a seed are kept, made now if asked for."""
    path = options.data / f"{options.preset}-seed{seed}.nc"
    if options.train:
        folder = options.checkpoints / f"synthetic-{options.preset}-seed{seed}"
        train(preset(options.preset, seed=seed), folder, device=options.device)
        run = measure_emergence(folder, n_per_basis=options.n_per_basis, n_probe=options.n_probe)
        run.save(path, digits=3)
    return path


runs = [load_result(measured(seed)) for seed in options.seeds]
result = icl_mech.emergence_over_seeds(runs)
print(result)

# %% [markdown]
# ## What comes first
#
# The onset of a curve is where half of its whole change is behind it, for good. *Encoding* is task
# decodability by nearest neighbours, at the layer where it is best at the end; *performance* the
# error of the prediction; *use* is where that error falls below ridge regression's on all
# coordinates, which it cannot without the basis.

# %%
print(result.onsets().round(0).to_string())
for fraction in (0.25, 0.5, 0.75):
    print(
        f"at {fraction:.0%} of the change, encoding {lead_in_words(result.lead(fraction))} updates"
    )
by_probe = result.lead(encoding="probe")
print(f"by a linear probe instead of neighbours, encoding {lead_in_words(by_probe)} updates")
print(f"relative to use, encoding {lead_in_words(result.lead(over='use'))} updates")

# %% [markdown]
# ## What the numbers show
#
# (Preset `small`, seeds 0 to 2, 100 held-out sequences per basis.)
#
# - *Near the optimum.* Error after the last example 1.23 to 1.28 times the Bayes mixture's, .41
#   times that of ridge regression on all coordinates. TD from chance to .95 or .96 after block 4
#   of 6.
# - *Neither first nor together.* TD is half risen 624 [445, 803] updates after the error has half
#   fallen: the first of what is learned needs no basis. But it is half risen 1,887 [1,271, 2,502]
#   updates before the error falls below ridge regression's: encoding precedes the use of it.
#   Checkpoints lie up to 1,400 updates apart there; and at a quarter or three quarters of the
#   change the first lead's interval holds 0.
# - *A basis is a direction*, so the perturbation matrix is here the exchange of the bases' lines,
#   with a random change as its control. Moving all y tokens from one basis' mean to the other's
#   changes nothing (.97 to .99 times the clean error). Activations move along a line with y;
#   exchanging the lines of the bases costs 6 to 17 times the clean error, after block 2 or 3, and
#   .29 to .56 of the prediction is then what regression on the injected basis says. A random change
#   as large costs 1.5 to 8 times, and brings -.04 to .21 of it. The own basis' line, fitted on
#   other sequences: 1.00 to 1.09. One token alone has no effect either way (1.04 to 1.15): the
#   paper's matrix, another basis' mean at one token, is not found again in these models.
# - *Heads:* one head of block 0 carries everything; later ones matter to one basis more than to the
#   other, and other ones in every seed.
#
# ## What not to conclude
#
# - *Not that this holds for the paper's sizes*: 2 bases instead of 4, 6 layers instead of 12, and a
#   curriculum, in whose first 6,000 updates weights have a mean.
# - *Not that order of onsets is order of causes.* Half of a change is a convention; see the other
#   fractions above.

# %% [markdown]
# ## Figures

# %%
first = runs[0]
figures = {
    "": result.plot(),
    "-training": first.plot(),
    "-points": first.plot_points(),
    "-perturbation": first.plot_perturbation(),
    "-heads": first.plot_heads(),
}
for suffix, figure in figures.items():
    path = options.out.with_stem(f"{options.out.stem}{suffix}")
    print(f"figure: {export(figure, path).resolve()}")
    if in_notebook:
        figure.show()
