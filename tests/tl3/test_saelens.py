"""SAELens and icl-mech in one environment, with TransformerLens 3: `make test-tl3`."""

from importlib.metadata import version

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from icl_mech.model import Edit, HookedModel
from icl_mech.patch import layer_scan
from icl_mech.prompts import draw_split
from icl_mech.tasks import load_task

LAYER = 9


def test_this_is_the_other_environment() -> None:
    assert version("transformer-lens").startswith("3.")


def test_a_layer_scan_of_the_packaged_model(gemma: HookedModel) -> None:
    """The layer and the accuracies that TransformerLens 4 gives."""
    scan = layer_scan(gemma, "country_capital", 6, 5, seed=0, progress=False)
    assert scan.data.sizes["layer"] == gemma.n_layers
    row = scan.full_summary().iloc[0]
    assert row["best_layer"] == LAYER
    assert row["hypothesis"] == pytest.approx(4 / 6)
    assert row["baseline"] == 0
    assert row["mean_logprob"] == pytest.approx(-2.8267, abs=1e-3)


def test_what_an_autoencoder_decodes_can_be_written(gemma: HookedModel) -> None:
    """One whose features are every dimension and its negative loses nothing."""
    d_model = gemma.d_model
    sae = StandardSAE(StandardSAEConfig(d_in=d_model, d_sae=2 * d_model, device="cpu"))
    both = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    with torch.no_grad():
        sae.W_dec.copy_(both)
        sae.W_enc.copy_(both.T)
    task = load_task("country_capital")
    encoder = gemma.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    drawn = draw_split(task, 2, 1, 5, 2, seed=0).test
    prompts = [encoder.encode(e.demonstrations, e.query.x) for e in drawn]
    resid = gemma.capture(prompts, ["final_arrow"])[:, 0, LAYER]
    with torch.no_grad():
        features = sae.encode(resid)
        decoded, nothing = sae.decode(features), sae.decode(torch.zeros_like(features))
    assert (features >= 0).all()
    edits = [Edit(LAYER, value, position="final_arrow") for value in (resid, decoded, nothing)]
    said = gemma.evaluate(prompts, edits, [[100], [200]]).logprob[..., 0]
    torch.testing.assert_close(said[:, 1], said[:, 0], atol=1e-4, rtol=0)
    assert (said[:, 2] - said[:, 0]).abs().min() > 0.1
