"""Task vectors written into prompts that invite the model to say what they hold."""

import numpy as np
import pytest
import torch
import xarray as xr
from tiny_models import answering_task

from icl_mech import InputError, patchscope
from icl_mech.model import HookedModel
from icl_mech.patchscope import Patchscope
from icl_mech.patchscope.plan import PatchscopeSettings, plan
from icl_mech.patchscope.run import _has
from icl_mech.prompts import with_dummies

FEW = {"n_prompts": 3, "n_shots": 2, "max_new_tokens": 3, "progress": False}


def test_equals_one_hooked_generation_per_cell(tiny_llama: HookedModel) -> None:
    """Against TransformerLens's own hooks, the whole text run again for every token."""
    found = patchscope(
        tiny_llama, answering_task(), invitations=["{}:a", "repeat"], layers=[1, -1], **FEW
    )
    settings = PatchscopeSettings(n_prompts=3, n_shots=2, n_dummies=2)
    ((task, split),) = plan(answering_task(), settings).tasks
    encoder = tiny_llama.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    prompt = tiny_llama.prompt("x:a")
    at = len(tiny_llama.prompt("x").tokens) - 1
    for i, dummies in enumerate(with_dummies(encoder, split.test)):
        for layer in (1, 3):
            vector = torch.stack(
                [tiny_llama.capture([p], [-1])[0, 0, layer] for p in dummies]
            ).mean(dim=0)

            def write(stream, hook, vector=vector):
                stream[:, at] = vector
                return stream

            tokens = list(prompt.tokens)
            for _ in range(3):
                with (
                    torch.no_grad(),
                    tiny_llama.bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", write)]),
                ):
                    logits = tiny_llama.bridge(torch.tensor([tokens]))
                tokens.append(int(logits[0, -1].argmax()))
            text = tiny_llama.bridge.tokenizer.decode(tokens[len(prompt.tokens) :])
            assert found.said("q", "{}:a", layer)[i] == text.split("\n")[0].split("<|end")[0]


def test_words_are_found_whole() -> None:
    texts = np.array([["the capital of", "capitals", "New Delhi!", "C++ x"]], dtype=object)
    assert _has(texts, ["capital", "New Delhi"]).tolist() == [[True, False, True, False]]
    assert _has(texts, ["C++"]).tolist() == [[False, False, False, True]]
    assert not _has(texts, []).any()


def made(named: float, n: int = 40) -> Patchscope:
    """Texts that name the task with this chance after layer 1, and never after layer 0."""
    rng = np.random.default_rng(0)
    shape = (1, 1, 2, n, 2)
    dims = ("task", "invitation", "vector", "prompt", "layer")
    names = np.zeros(shape, dtype=bool)
    names[0, 0, 0, :, 1] = rng.random(n) < named
    data = xr.Dataset(
        {
            "text": (dims, np.full(shape, "a word")),
            "names": (dims, names),
            "answers": (dims, np.zeros(shape, dtype=bool)),
            "other_names": (dims, np.full(shape, 0.05)),
            "query": (("task", "prompt"), [[f"q{i}" for i in range(n)]]),
            "n_queries": ("task", [n]),
        },
        coords={"task": ["t"], "invitation": ["repeat"], "vector": ["own", "random"]},
    ).assign_coords(layer=[4, 5])
    return Patchscope(data, {"naming": {"t": ["word"]}, "model": "m"})


def test_the_layer_is_chosen_on_other_vectors_than_it_is_quoted_from() -> None:
    found = made(0.6)
    assert found.best_layer("t", "repeat") == 5
    odd = found.data["names"].values[0, 0, 0, 1::2, 1].mean()
    assert found.full_summary()["names"].item() == odd
    assert found.gain("t", "repeat").value == pytest.approx(odd - 0.05)
    assert found.finding() == "The model names the task"
    assert made(0.0).finding() == "The model is not shown to name the task"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"invitations": ("repaet",)}, "did you mean 'repeat'"),
        ({"invitations": ("{} {}",)}, "marks several tokens"),
        ({"invitations": ()}, "expected at least one"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PatchscopeSettings(**settings)


def test_a_layer_that_was_not_read() -> None:
    with pytest.raises(InputError, match="layer 3 was not read; expected one of 4, 5"):
        made(1).said("t", "repeat", 3)
