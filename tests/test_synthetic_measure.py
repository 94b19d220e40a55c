"""What is measured at checkpoints, against the plain way and on cases with known answers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

import icl_mech
from icl_mech.decodability import knn_credit
from icl_mech.errors import InputError
from icl_mech.stats import ratio_of_means
from icl_mech.synthetic import (
    REFERENCES,
    Emergence,
    draw_balanced,
    list_checkpoints,
    load_checkpoint,
    make_mixture,
    measure_emergence,
    predict,
    preset,
    train,
)
from icl_mech.synthetic.ablation import head_means, heads_off
from icl_mech.synthetic.checkpoints import make_model
from icl_mech.synthetic.following import followed
from icl_mech.synthetic.measure import PERTURBATIONS
from icl_mech.synthetic.perturb import (
    basis_lines,
    perturbed,
    positions,
    residuals,
    token_ys,
)
from icl_mech.synthetic.probes import basis_probe, detectable_r2, weight_probe

N = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run <b>")
    settings = preset("tiny", curriculum_steps=5)
    train(settings, folder, device="cpu", n_log=0, n_regular=2, progress=False)
    return folder


@pytest.fixture(scope="module")
def emergence(folder: Path) -> Emergence:
    return measure_emergence(folder, n_per_basis=N, n_probe=100, k=3, progress=False)


def test_errors_and_distances_are_the_plain_ones(folder: Path, emergence: Emergence) -> None:
    assert emergence.steps == [0, 20, 40]
    mixture = preset("tiny").mixture
    batch = draw_balanced(mixture, N, 0, 0)
    ys = batch.ys.double()
    for step, file in zip(emergence.steps, list_checkpoints(folder), strict=True):
        predicted = load_checkpoint(file).model().predict(batch.xs, batch.ys).double()
        found = emergence.data.sel(step=step)
        for b, s in ((0, 0), (1, 5), (1, N - 1)):
            row = b * N + s
            np.testing.assert_allclose(
                found["squared_error"].values[b, s], (predicted[row] - ys[row]) ** 2, rtol=1e-4
            )
            for name in ("ridge", "bayes_mixture"):
                theirs = predict(name, batch, mixture)[row]
                np.testing.assert_allclose(
                    found["distance"].sel(reference=name).values[b, s],
                    (predicted[row] - theirs).square().mean(),
                    rtol=1e-4, atol=1e-8,
                )  # fmt: skip
        gaps = {n: (predicted - predict(n, batch, mixture)).square().mean() for n in REFERENCES}
        assert emergence.nearest_reference(step) == min(gaps, key=lambda name: gaps[name])
        at = emergence.steps.index(step)
        np.testing.assert_allclose(
            emergence.distances().value[at], [gaps[n] for n in emergence.references], rtol=1e-4
        )
        mse = (predicted - ys).square().mean(0)
        np.testing.assert_allclose(emergence.error(step).value, mse, rtol=1e-4)
    ratio = mse[-1] / (predict("ridge", batch, mixture) - ys).square().mean(0)[-1]
    assert emergence.against("ridge").value == pytest.approx(ratio.item(), rel=1e-4)


def test_decodability_is_that_of_the_last_y_token(folder: Path, emergence: Emergence) -> None:
    model = load_checkpoint(list_checkpoints(folder)[-1]).model()
    for step, name in ((0, "credit"), (1, "dev_credit")):
        batch = draw_balanced(preset("tiny").mixture, N, 0, step)
        _, cache = model.run_with_cache(model.tokens(batch.xs, batch.ys))
        rows = [cache[f"blocks.{layer}.hook_resid_post"][:, 5].numpy() for layer in range(2)]
        expected = knn_credit(np.stack(rows, 1), batch.basis.numpy(), np.arange(2 * N), 3)
        found = emergence.data[name].isel(step=-1).values.reshape(2 * N, 2)
        np.testing.assert_allclose(found, expected)
    layer = emergence.best_layer()
    assert layer == expected.mean(0).argmax()
    assert emergence.td().value == pytest.approx(emergence.td_by_layer().value[-1, layer])


def test_perturbations_are_two_hooks_by_hand() -> None:
    mixture = make_mixture(4, 2, 2, n_examples=3)
    model = make_model(preset("tiny")).eval().requires_grad_(False)
    batch = draw_balanced(mixture, 4, 0)
    tokens = model.tokens(batch.xs, batch.ys)
    out, resid = residuals(model, tokens)
    lines = basis_lines(resid, token_ys(model, tokens), batch.basis, 2)
    means = lines.mean
    torch.testing.assert_close(means[1, 0, 5], resid[1, :4, 5].mean(0))
    for at, where in (("last_y", [5]), ("all_y", [1, 3, 5]), ("query", [6])):
        assert positions(model, at) == where
        found = perturbed(model, tokens, batch.basis, lines, at)
        assert found.shape == (2, 2, 8)
        for layer, target in ((0, 0), (0, 1), (1, 1)):
            stream = resid[layer].clone()
            stream[:, where] = means[layer, target][where]
            for block in model.blocks[layer + 1 :]:
                stream = block(stream)
            by_hand = model.read_out(model.ln_final(stream))[:, -1, 0]
            torch.testing.assert_close(found[layer, target], by_hand)
    # After the last block nothing reads the last y token; before it, something does.
    found = perturbed(model, tokens, batch.basis, lines, "last_y")
    torch.testing.assert_close(found[1], out[:, -1].expand(2, -1))
    assert not torch.isclose(found[0, 0], out[:, -1]).any()
    # Giving a basis what it has is no change; replacing erases the token's own content.
    for at, how in (("query", "shift"), ("all_y", "shift"), ("all_y", "exchange")):
        moved = perturbed(model, tokens, batch.basis, lines, at, how)
        own = moved[:, batch.basis, torch.arange(8)]
        torch.testing.assert_close(own, out[:, -1].expand(2, -1))
        assert not torch.isclose(moved[0, 0, 4:], out[4:, -1]).any()


def test_a_basis_own_line_is_a_test_where_it_was_fitted_twice() -> None:
    mixture = preset("tiny").mixture
    model = make_model(preset("tiny")).eval().requires_grad_(False)
    batch, once, again = (draw_balanced(mixture, 30, 0, step) for step in range(3))
    tokens = model.tokens(batch.xs, batch.ys)
    taken, written = (
        basis_lines(residuals(model, t)[1], token_ys(model, t), b.basis, 2)
        for b in (once, again)
        for t in (model.tokens(b.xs, b.ys),)
    )
    clean = residuals(model, tokens)[0][:, -1]
    for how in ("shift", "exchange"):
        moved = perturbed(model, tokens, batch.basis, written, "all_y", how, taken)
        own = moved[0, batch.basis, torch.arange(60)]
        assert (own != clean).all()


def test_a_random_change_is_as_long_and_turns_with_y() -> None:
    mixture = preset("tiny").mixture
    model = make_model(preset("tiny")).eval().requires_grad_(False)
    batch = draw_balanced(mixture, 500, 0)
    tokens = model.tokens(batch.xs, batch.ys)
    ys = token_ys(model, tokens)
    resid = residuals(model, tokens)[1]
    lines = basis_lines(resid, ys, batch.basis, 2)
    # The directions vary as activations at y tokens do.
    at_y = resid[0, :, 1::2].flatten(0, 1)
    torch.testing.assert_close(lines.spread[0].T @ lines.spread[0], torch.cov(at_y.T))
    seen = []
    model.blocks[1].hook_resid_pre.add_hook(lambda resid, hook: seen.append(resid.clone()))
    for how in ("exchange", "random"):
        perturbed(model, tokens, batch.basis, lines, "all_y", how)
    # Block 1 runs once for the model as it is, then after block 0 was changed to either basis.
    assert len(seen) == 6
    exchanged, turned = (seen[i][:, 1::2] - resid[0][:, 1::2] for i in (2, 5))
    torch.testing.assert_close(turned.norm(dim=-1), exchanged.norm(dim=-1), atol=1e-5, rtol=1e-3)
    other = batch.basis == 0
    angle = torch.cosine_similarity(turned[other, 0], turned[other, 2], dim=-1)
    same = (ys[other, 1] < 0) == (ys[other, 5] < 0)
    torch.testing.assert_close(angle, torch.where(same, 1.0, -1.0), atol=1e-3, rtol=0)


def test_what_a_changed_prediction_follows() -> None:
    rng = np.random.default_rng(0)
    own, target, noise = rng.standard_normal((3, 400))
    found = followed(0.3 * own + 0.6 * target + 0.1 * noise, own, target)
    np.testing.assert_allclose(found.value, [0.3, 0.6], atol=0.02)
    fitted = LinearRegression(fit_intercept=False).fit(
        np.stack([own, target], 1), 0.3 * own + 0.6 * target + 0.1 * noise
    )
    np.testing.assert_allclose(found.value, fitted.coef_)
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()
    assert np.isnan(followed(own, own, own).value).all()


def test_lines_are_least_squares_and_exchanged_at_the_tokens_own_y() -> None:
    mixture = make_mixture(4, 2, 2, n_examples=3)
    model = make_model(preset("tiny")).eval().requires_grad_(False)
    batch = draw_balanced(mixture, 20, 0)
    tokens = model.tokens(batch.xs, batch.ys)
    _, resid = residuals(model, tokens)
    ys = token_ys(model, tokens)
    assert torch.equal(ys[:, 1::2], batch.ys[:, :3])
    assert not ys[:, ::2].any()
    lines = basis_lines(resid, ys, batch.basis, 2)
    for k, pos in ((0, 1), (1, 5)):
        ours = batch.basis == k
        fitted = LinearRegression().fit(ys[ours, pos, None], resid[1, ours, pos])
        np.testing.assert_allclose(lines.slope[1, k, pos], fitted.coef_[:, 0], atol=1e-4)
        np.testing.assert_allclose(lines.level[1, k, pos], fitted.intercept_, atol=1e-4)
    torch.testing.assert_close(lines.level[1, 0, 4], lines.mean[1, 0, 4])  # an x token
    where = [1, 3, 5]
    stream = resid[0].clone()
    change = (
        lines.level[0, 1]
        - lines.level[0, 0]
        + (ys[:20, :, None] * (lines.slope[0, 1] - lines.slope[0, 0]))
    )
    stream[:20, where] += change[:, where]
    by_hand = model.read_out(model.ln_final(model.blocks[1](stream)))[:20, -1, 0]
    found = perturbed(model, tokens, batch.basis, lines, "all_y", "exchange")
    torch.testing.assert_close(found[0, 1, :20], by_hand)


def test_heads_are_switched_off_as_by_hand(folder: Path, emergence: Emergence) -> None:
    model = load_checkpoint(list_checkpoints(folder)[-1]).model()
    mixture = preset("tiny").mixture
    test, dev = (draw_balanced(mixture, N, 0, step) for step in (0, 1))
    tokens = model.tokens(test.xs, test.ys)
    means = head_means(model, model.tokens(dev.xs, dev.ys))
    off = heads_off(model, tokens, means)
    assert off.shape == (2, 2, 2 * N)
    for layer, head in ((0, 1), (1, 0)):
        block = model.blocks[layer]
        _, cache = model.run_with_cache(tokens)
        _, of_dev = model.run_with_cache(model.tokens(dev.xs, dev.ys))
        z = cache[f"blocks.{layer}.attn.hook_z"].clone()
        z[:, :, head] = of_dev[f"blocks.{layer}.attn.hook_z"][:, :, head].mean(0)
        mid = cache[f"blocks.{layer}.hook_resid_pre"] + block.attn.out(z.flatten(-2))
        stream = mid + block.mlp(block.ln2(mid))
        for after in model.blocks[layer + 1 :]:
            stream = after(stream)
        by_hand = model.read_out(model.ln_final(stream))[:, -1, 0]
        torch.testing.assert_close(off[layer, head], by_hand)
    wrong = (off.double() - test.ys[:, -1]).square().unflatten(-1, (2, N)).mean(-1)
    clean = emergence.data["squared_error"].isel(step=-1, n_seen=-1).mean("sequence").values
    expected = wrong.permute(2, 0, 1).numpy() / clean[:, None, None]
    np.testing.assert_allclose(emergence.head_effects().value, expected, rtol=1e-4)


@pytest.mark.slow
def test_points_keep_their_distances_and_turn_as_little_as_they_can(
    folder: Path, emergence: Emergence
) -> None:
    model = load_checkpoint(list_checkpoints(folder)[-1]).model()
    batch = draw_balanced(preset("tiny").mixture, N, 0)
    rows = residuals(model, model.tokens(batch.xs, batch.ys))[1][1, :, 5].numpy()
    expected = PCA(2).fit_transform(rows)
    points = emergence.data["points"].isel(layer=1).values.reshape(3, 2 * N, 2)
    np.testing.assert_allclose(pdist(points[-1]), pdist(expected), rtol=1e-4)
    for before, after in pairwise(points):
        for mirrored in (after * [1, -1], after * [-1, 1], -after, after[:, ::-1]):
            assert ((after - before) ** 2).sum() <= ((mirrored - before) ** 2).sum()
    umap_less = measure_emergence(folder, n_per_basis=N, k=3, projection="tsne", progress=False)
    assert umap_less.provenance["projection"] == "tsne"
    assert not np.allclose(umap_less.data["points"], emergence.data["points"])


def test_perturbation_is_relative_to_the_clean_error(emergence: Emergence) -> None:
    data = emergence.data.isel(step=-1)
    clean = data["squared_error"].isel(n_seen=-1).mean("sequence").values
    wrong = (data["perturbed"] - data["query_y"]) ** 2
    for layer in range(2):
        after = wrong.isel(layer=layer, perturbation=0).mean("sequence")
        after = after.transpose("basis", "target").values
        found = emergence.perturbation(layer=layer).value
        np.testing.assert_allclose(found, after / clean[:, None], rtol=1e-5)
    np.testing.assert_allclose(found, 1, rtol=1e-5)  # last y, after the last block
    assert emergence.perturbations == [f"{at}:{how}" for at, how in PERTURBATIONS]
    # The layer is chosen on one half of the sequences, and reported on the other.
    exchange = emergence.perturbations.index("all_y:exchange")
    halves = wrong.isel(perturbation=exchange), data["squared_error"].isel(n_seen=-1)
    chosen, reported = (
        [half.isel(sequence=slice(start, None, 2)).mean("sequence") for half in halves]
        for start in (0, 1)
    )
    ratios = (chosen[0] / chosen[1]).transpose("layer", "basis", "target").values
    layer = int(np.argmax([min(table[0, 1], table[1, 0]) for table in ratios]))
    assert emergence.causal_layer(which="all_y:exchange") == layer
    expected = (reported[0].isel(layer=layer) / reported[1]).transpose("basis", "target")
    found = emergence.perturbation(which="all_y:exchange").value
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The same half tells whose regression is followed.
    half = data.isel(sequence=slice(1, None, 2), perturbation=exchange, layer=layer, basis=0)
    as_if = half["basis_prediction"].transpose("sequence", "target").values
    own = followed(half["perturbed"].isel(target=1).values, as_if[:, 0], as_if[:, 1])
    found = emergence.followed(which="all_y:exchange").value
    np.testing.assert_allclose(found[0, 1], own.value, rtol=1e-5)
    assert np.isnan(found[0, 0]).all()


def test_probes_read_what_is_there_and_nothing_else() -> None:
    batch = draw_balanced(make_mixture(4, 2, 2), 100, 0)
    weights, basis = batch.weights.numpy(), batch.basis.numpy()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200, 10)).astype(np.float32)
    mixed = weights @ rng.standard_normal((4, 10)).astype(np.float32) + 0.01 * noise
    length = (weights**2).sum()
    assert weight_probe(mixed, weights).sum() / length < 0.01
    assert weight_probe(noise, weights).sum() / length > 0.9
    assert basis_probe(noise + 20 * basis[:, None], basis).all()
    # Five standard errors about chance.
    assert abs(basis_probe(noise, basis).mean() - 0.5) < 5 * 0.5 / 200**0.5


def test_what_a_probe_of_few_sequences_would_have_shown() -> None:
    """A plant at the detection limit is read as above 0, one of half of it often is not."""
    weights = draw_balanced(make_mixture(4, 2, 2), 100, 0).weights.numpy()
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 20)) * np.linspace(0.1, 3, 20)
    limit = detectable_r2(rows, weights)
    assert 0.05 <= limit <= 0.3
    assert detectable_r2(np.repeat(rows, 4, 0) + rng.standard_normal((800, 20)) * 1e-3,
                         np.repeat(weights, 4, 0)) < limit  # fmt: skip
    # More coefficients than sequences: nothing short of everything is found.
    assert not detectable_r2(rng.standard_normal((25, 60)), weights[::8]) < 0.3
    linear = rows / rows.std(0) @ rng.standard_normal((20, 4)) / 20**0.5
    shown = []
    for share in (0.0, limit):
        made = (1 - share) ** 0.5 * rng.permutation(weights) + share**0.5 * weights.std(0) * linear
        lost = ratio_of_means(weight_probe(rows, made), (made**2).sum(1)).at()
        shown.append(1 - lost.high > 0)
    assert shown == [False, True]


def test_the_probe_of_w_has_sequences_of_its_own(folder: Path, emergence: Emergence) -> None:
    batch = draw_balanced(preset("tiny").mixture, 100, 0, 4)
    model = load_checkpoint(list_checkpoints(folder)[-1]).model()
    rows = residuals(model, model.tokens(batch.xs, batch.ys))[1][1, :, 5].numpy()
    errors = weight_probe(rows, batch.weights.numpy())
    found = emergence.weight_r2().at(1)
    assert found.n == 200
    assert found.value == pytest.approx(
        1 - errors.sum() / batch.weights.square().sum().item(), abs=1e-4
    )
    assert emergence.n_probe == 100
    best = int(emergence.weight_r2().value.argmax())
    rows = residuals(model, model.tokens(batch.xs, batch.ys))[1][best, :, 5].numpy()
    assert emergence.weight_limit == pytest.approx(detectable_r2(rows, batch.weights.numpy()))
    assert emergence.full_summary()["weight_limit"].iloc[-1] == emergence.weight_limit
    note = f"tells a true R² of {emergence.weight_limit:.2f} from 0"
    assert any(note in caveat for caveat in emergence.caveats())
    heading = emergence.plot_algorithms().layout.annotations[1].text
    assert f"100 sequences per basis; a true R² of {emergence.weight_limit:.2f}" in heading


def test_a_representation_of_the_basis_is_decoded(folder: Path) -> None:
    """A model made to carry the basis: the last y token's read-in is replaced by it."""
    model = load_checkpoint(list_checkpoints(folder)[-1]).model()
    batch = draw_balanced(preset("tiny").mixture, N, 0)

    def carry(resid, hook):
        resid[:, 5] += 100 * torch.eye(16)[batch.basis]
        return resid

    model.hook_embed.add_hook(carry)
    rows = residuals(model, model.tokens(batch.xs, batch.ys))[1][:, :, 5].numpy()
    credit = knn_credit(rows.transpose(1, 0, 2), batch.basis.numpy(), np.arange(2 * N), 3)
    assert (credit == 1).all()


def test_it_is_saved_shown_and_drawn(emergence: Emergence, tmp_path: Path) -> None:
    again = icl_mech.load_result(emergence.save(tmp_path / "run.nc"))
    assert isinstance(again, Emergence)
    assert again.data.identical(emergence.data)
    assert again.provenance == emergence.provenance
    summary = emergence.full_summary()
    assert list(summary.index) == [0, 20, 40]
    assert summary["mse_basis_1"].iloc[-1] == pytest.approx(emergence.basis_errors().value[-1, 1])
    assert list(emergence.table().index) == [0, 20, 40]
    assert len(emergence.to_frame()) == 3 * 2 * N * 2
    assert any("curriculum" in note for note in emergence.caveats())
    figure = emergence.plot()
    assert [trace.name for trace in figure.data] == [
        "basis 0",
        "basis 1",
        "after block 0",
        "after block 1",
    ]
    assert list(figure.data[0].x) == [1, 21, 41]
    np.testing.assert_allclose(figure.data[2].y, emergence.td_by_layer().value[:, 0])
    assert "<b>" not in figure.layout.title.text


def test_every_question_has_a_figure(emergence: Emergence) -> None:
    slider = emergence.plot_points()
    assert [frame.name for frame in slider.frames] == ["0", "20", "40"]
    assert [step.label for step in slider.layout.sliders[0].steps] == ["0", "20", "40"]
    layer = emergence.best_layer()
    points = emergence.data["points"].isel(step=0, layer=layer, axis=1)
    np.testing.assert_allclose(slider.frames[0].data[1].y, points.isel(basis=1))
    assert str(emergence.td(20, layer)) in slider.frames[1].layout.annotations[0].text
    matrices = emergence.plot_perturbation()
    maps = [trace for trace in matrices.data if trace.type == "heatmap"]
    lines = [trace for trace in matrices.data if trace.type == "scatter"]
    n_maps = len(emergence.perturbations)
    assert len(maps) == 2 * n_maps
    assert len(lines) == 3 * n_maps
    for i, name in enumerate(emergence.perturbations):
        layer = emergence.causal_layer(which=name)
        for trace, step in zip(maps[2 * i :][:2], (0, 40), strict=True):
            shown = emergence.perturbation(step, layer, name).value
            np.testing.assert_allclose(2.0 ** np.array(trace.z), shown)
        other, own, taken_over = lines[3 * i :][:3]
        matrix = emergence.perturbation(layer=1, which=name).value
        assert own.y[1] == pytest.approx(matrix.diagonal().max())
        assert other.y[1] == pytest.approx(min(matrix[0, 1], matrix[1, 0]))
        shares = emergence.followed(layer=1, which=name).value[..., 1]
        assert taken_over.y[1] == pytest.approx((shares[0, 1] + shares[1, 0]) / 2)
    algorithms = {trace.name: trace for trace in emergence.plot_algorithms().data}
    at = emergence.references.index("gradient_descent_4")
    np.testing.assert_allclose(
        algorithms["gradient descent, 4 steps"].y, emergence.distances().value[:, at]
    )
    np.testing.assert_allclose(
        algorithms["after 40 updates"].y, emergence.weight_r2().value.clip(min=-0.05)
    )
    for k, trace in enumerate(emergence.plot_heads().data):
        np.testing.assert_allclose(2.0 ** np.array(trace.z), emergence.head_effects().value[k])
    for figure in (slider, matrices, emergence.plot_algorithms(), emergence.plot_heads()):
        assert "<b>" not in figure.layout.title.text


def test_mistakes_are_refused(folder: Path, emergence: Emergence, tmp_path: Path) -> None:
    for options, message in (
        ({"n_per_basis": 9, "k": 3}, "n_per_basis 9, k 3; expected"),
        ({"n_per_basis": 20, "k": 20}, "above k"),
        ({"k": 0}, "expected k of at least 1"),
        ({"n_probe": 9}, "n_probe 9; expected 10 to 10,000"),
        ({"n_per_basis": 10**9}, "at most 10,000"),
        ({"seed": 2**32}, "seed is 4294967296; expected at most 4294967295"),
        ({"projection": "pcb"}, "did you mean 'pca'"),
        ({"perturbations": []}, "expected at least one, each once"),
        ({"perturbations": [("last_y", "shift")] * 2}, "expected at least one, each once"),
    ):
        with pytest.raises(InputError, match=message):
            measure_emergence(folder, progress=False, **options)
    with pytest.raises(InputError, match="no checkpoints"):
        measure_emergence(tmp_path, progress=False)
    with pytest.raises(InputError, match="no checkpoint after 30 steps; the nearest is after 20"):
        emergence.td(29 + 1)
    with pytest.raises(InputError, match="did you mean 'ridge'"):
        emergence.reference_error("rigde")
    with pytest.raises(InputError, match="did you mean 'all_y:exchange'"):
        emergence.perturbation(which="all_y:exchang")
    with pytest.raises(InputError, match="did you mean 'lasso'"):
        emergence.against("laso")
    # Checkpoints of two runs in one folder.
    for file in list_checkpoints(folder):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    train(
        preset("tiny", seed=1, curriculum_steps=5),
        tmp_path / "b",
        device="cpu",
        n_log=0,
        n_regular=0,
        progress=False,
    )
    stranger = list_checkpoints(tmp_path / "b")[0]
    (tmp_path / stranger.name).write_bytes(stranger.read_bytes())
    with pytest.raises(InputError, match="belongs to another run than the last: .*seed is 1"):
        measure_emergence(tmp_path, n_per_basis=N, k=3, progress=False)
