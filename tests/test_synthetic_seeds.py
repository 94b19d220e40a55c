"""Onsets of curves with known answers, and runs of several seeds side by side."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import icl_mech
from icl_mech.errors import InputError
from icl_mech.stats import few_mean
from icl_mech.stats.onset import crossing, crossings
from icl_mech.synthetic import (
    Emergence,
    EmergenceOverSeeds,
    emergence_over_seeds,
    measure_emergence,
    onset,
    onsets,
    preset,
    train,
)
from icl_mech.synthetic.settings import to_json

STEPS = [0, 100, 200, 300, 400]
N = 30


def test_onset_is_the_last_crossing() -> None:
    def rising(*values: float) -> float:
        return onset(STEPS, np.array(values, dtype=float))

    assert rising(0, 0, 1, 1, 1) == 150
    assert rising(1, 1, 0, 0, 0) == 150
    assert rising(0, 1, 0, 0, 1) == 350  # what was lost again is no onset
    assert rising(0, 0, 0, 2, 1) == 225
    assert np.isnan(rising(1, 5, 0, 2, 1))
    assert onset(STEPS, np.array([0.0, 1, 2, 3, 4]), 0.25) == 100
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="expected between 0 and 1"):
            onset(STEPS, np.array([0.0, 1, 2, 3, 4]), fraction)
    assert crossing(STEPS, np.array([2.0, 1, 3, 0, 4]), 2.0) == 350
    assert np.isnan(crossing(STEPS, np.array([2.0, 3, 3, 3, 1]), 2.0))
    assert np.isnan(crossing(STEPS, np.array([2.0, 3, 3, 3, 3]), 2.0))
    # Halfway on a logarithmic axis, in units of the first step: between 2 and 112, and 1 and 2.
    assert onset([0, 9, 999], np.array([0.0, 0, 1]), log=True) == pytest.approx(9 * (224**0.5 - 1))
    assert onset([0, 99], np.array([0.0, 1]), log=True) == pytest.approx(99 * (2**0.5 - 1))
    several = np.array([[2.0, 1, 3, 0, 4], [2, 3, 3, 3, 1], [0, 4, 4, 4, 4]])
    each = [crossing(STEPS, curve, 2.0) for curve in several]
    np.testing.assert_array_equal(crossings(STEPS, several, 2.0), each)
    with pytest.raises(InputError, match="1 checkpoints; expected at least 2"):
        onset([0], np.array([1.0]))


def drawn(seed: int, encoded: list[int], solved: list[int]) -> Emergence:
    """Two bases, decoded right and predicted well from given checkpoints on; layer 1 is best."""
    rng = np.random.default_rng(seed)
    steps, basis, sequence, layers = len(STEPS), 2, N, 2
    credit = rng.integers(0, 2, (steps, basis, sequence, layers)).astype(float)
    error = np.empty((steps, basis, sequence, 2))
    for k in range(basis):
        credit[encoded[k] :, k, :, 1] = 1
        credit[: encoded[k], k, :, 1] = 0
        error[:, k] = np.where(np.arange(steps) < solved[k], 4.0, 1.0)[:, None, None]
    dims = ("step", "basis", "sequence")
    data = xr.Dataset(
        {
            "credit": ((*dims, "layer"), credit),
            "dev_credit": ((*dims, "layer"), credit),
            "basis_probe": ((*dims, "layer"), credit[::-1] > 0.5),
            "squared_error": ((*dims, "n_seen"), error),
            "reference_squared_error": (
                ("reference", *dims[1:], "n_seen"),
                np.full((1, basis, N, 2), 1.75),
            ),
        },
        coords={"step": STEPS, "reference": ["ridge"]},
    )
    settings = to_json(preset("tiny", seed=seed, n_steps=400))
    return Emergence(data, {"model": "m", "settings": settings, "n_per_basis": N})


def test_onsets_of_encoding_and_performance() -> None:
    run = drawn(0, encoded=[1, 2], solved=[3, 2])
    found = onsets(run)
    assert found["encoding"].tolist() == [50, 150]
    assert found["performance"].tolist() == [250, 150]
    assert found["lead"].tolist() == [200, 0]
    # From 4 to 1, three quarters of the way to 1.75.
    assert found["use"].tolist() == [275, 175]
    assert found["lead_of_use"].tolist() == [225, 25]
    assert onsets(run, 0.25)["encoding"].tolist() == [25, 125]
    # By the probe, which was made the other way round: nothing emerges.
    assert onsets(run, encoding="probe")["encoding"].isna().all()
    never = drawn(0, encoded=[1, 5], solved=[3, 5])
    assert onsets(never).loc[1].isna().all()


def test_seeds_side_by_side() -> None:
    runs = [drawn(3, [1, 2], [3, 2]), drawn(1, [1, 1], [2, 4]), drawn(2, [2, 2], [1, 2])]
    several = emergence_over_seeds(runs)
    assert several.seeds == [3, 1, 2]
    assert several.run(1).data.identical(runs[1].data)
    assert several.run(1).provenance == runs[1].provenance
    assert several.onsets().loc[(1, 1)].tolist() == [50, 350, 375, 300, 325]
    of_use = several.lead(over="use")
    assert of_use.value == pytest.approx(several.lead().value + 25)
    lead = several.lead()
    leads = np.array([100.0, 200.0, -50.0])
    assert lead.value == pytest.approx(leads.mean())
    expected = stats.ttest_1samp(leads, 0).confidence_interval(0.95)
    assert (lead.low, lead.high) == pytest.approx((expected.low, expected.high))
    figure = several.plot()
    marks = [t.x[0] for t in figure.data if t.mode == "markers"]
    assert marks[:4] == [50, 250, 150, 150]
    assert "leads by 83 [-22" in figure.layout.title.subtitle.text.replace("<br>", " ")
    later = emergence_over_seeds([drawn(0, [3, 3], [1, 2]), drawn(1, [2, 3], [1, 1])])
    assert later.lead().value == -150
    assert "lags by 150 [150, 150] updates" in later.plot().layout.title.subtitle.text.replace(
        "<br>", " "
    )
    assert [s.x0 for s in figure.layout.shapes][:2] == [275, 175]
    with pytest.raises(InputError, match=r"no run with seed 9; expected one of \[3, 1, 2\]"):
        several.run(9)


def test_only_runs_that_belong_together() -> None:
    with pytest.raises(InputError, match="no runs"):
        emergence_over_seeds([])
    with pytest.raises(InputError, match="expected each seed once"):
        emergence_over_seeds([drawn(0, [1, 1], [1, 1])] * 2)
    other = drawn(1, [1, 1], [1, 1])
    other.provenance["settings"]["n_steps"] = 500
    with pytest.raises(InputError, match="more than the seed: settings.n_steps is 500, not 400"):
        emergence_over_seeds([drawn(0, [1, 1], [1, 1]), other])


def test_a_mean_of_few() -> None:
    assert np.isnan(few_mean(np.array([2.0])).low)
    assert few_mean(np.array([2.0])).value == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EmergenceOverSeeds:
    runs = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("runs") / f"seed{seed}"
        train(preset("tiny", seed=seed), folder, device="cpu", n_log=0, n_regular=2, progress=False)
        runs.append(measure_emergence(folder, n_per_basis=12, n_probe=20, k=3, progress=False))
    return emergence_over_seeds(runs)


def test_it_is_saved_and_shown(trained: EmergenceOverSeeds, tmp_path: Path) -> None:
    again = icl_mech.load_result(trained.save(tmp_path / "seeds.nc"))
    assert isinstance(again, EmergenceOverSeeds)
    assert again.data.identical(trained.data)
    summary = trained.full_summary()
    assert summary.index.tolist() == [0, 1]
    assert summary.loc[1, "td"] == trained.run(1).td().value
    over = trained.over_seeds()["over_ridge"]
    assert over.value == pytest.approx(summary["over_ridge"].mean())
    table = trained.table()
    assert table.index.tolist() == ["seed 0", "seed 1", "mean over seeds"]
    assert table.loc["mean over seeds", "over ridge"] == str(over)
    assert len(trained.to_frame()) == 2 * 3 * 2 * 12 * 2
    assert any("2 seeds" in note for note in trained.caveats())
    assert any("20 to 20 updates apart" in note for note in trained.caveats())
