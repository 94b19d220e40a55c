"""The plain way, to compare with: one full TransformerLens forward per prompt and edit.

And closed formulas of statistics.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Prompt

Z = NormalDist().inv_cdf(0.975)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson 1927: the p for which |k/n - p| = z sqrt(p (1 - p) / n)."""
    share = k / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return middle - half, middle + half


def prompt_of(tokens: Sequence[int]) -> Prompt:
    """Token ids as a prompt without text or roles."""
    return Prompt("", tuple(tokens), ("",) * len(tokens))


def random_prompts(model: HookedModel, lengths: Sequence[int], seed: int = 0) -> list[Prompt]:
    """Random tokens, one prompt per length."""
    generator = torch.Generator().manual_seed(seed)
    d_vocab = model.bridge.cfg.d_vocab
    return [prompt_of(torch.randint(d_vocab, (n,), generator=generator).tolist()) for n in lengths]


def hook_name(edit: Edit, n_layers: int) -> str:
    layer = edit.layer % n_layers
    return f"blocks.{layer}.attn.hook_z" if edit.site == "z" else f"blocks.{layer}.hook_{edit.site}"


def plain_logprobs(
    model: HookedModel, prompt: Prompt, edit: Edit | Sequence[Edit] | None = None, row: int = 0
) -> Tensor:
    """Log probabilities of the next token, by one unbatched forward with one hook per edit."""
    return plain_each(model, prompt, [edit], row)[0]


def plain_each(
    model: HookedModel, prompt: Prompt, edits: Sequence[Edit | Sequence[Edit] | None], row: int = 0
) -> Tensor:
    """The same for several edits: `[edit, token]`.

    One forward of as many copies of the prompt; a hook writes to its own copy.
    """
    hooks = [
        hook
        for copy, edit in enumerate(edits)
        for e in ([] if edit is None else [edit] if isinstance(edit, Edit) else edit)
        for hook in hooks_of(model, prompt, e, row, copy)
    ]
    with torch.inference_mode():
        tokens = torch.tensor([prompt.tokens] * len(edits))
        logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)
    return logits[:, -1].float().log_softmax(dim=-1)


def hooks_of(
    model: HookedModel, prompt: Prompt, edit: Edit, row: int, copy: int
) -> list[tuple[str, Callable]]:
    """One hook that writes the edit; between attention and MLP, what attention adds is changed."""
    write = _writer(prompt, edit, row)

    def write_to_copy(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        write(activation[copy])
        return activation

    if edit.site != "resid_mid":
        return [(hook_name(edit, model.n_layers), write_to_copy)]
    block = f"blocks.{edit.layer % model.n_layers}"
    seen: dict[str, Tensor] = {}

    def remember(resid_pre: Tensor, hook: object) -> None:
        seen["resid_pre"] = resid_pre[copy]

    def between(attn_out: Tensor, hook: object) -> Tensor:
        attn_out = attn_out.clone()
        between = seen["resid_pre"] + attn_out[copy]
        write(between)
        attn_out[copy] = between - seen["resid_pre"]
        return attn_out

    return [(f"{block}.hook_resid_pre", remember), (f"{block}.hook_attn_out", between)]


def _writer(prompt: Prompt, edit: Edit, row: int) -> Callable[[Tensor], None]:
    """Writes to the activations of one prompt, `[token, ...]`, in place."""
    at = prompt.position(edit.position)
    value = (edit.value if edit.value.ndim == 1 else edit.value[row]) * edit.scale

    def write(activation: Tensor) -> None:
        target = activation[at] if edit.head is None else activation[at, edit.head]
        target.copy_(value if edit.mode == "replace" else target + value)

    return write


def assert_same(
    model: HookedModel,
    prompts: Sequence[Prompt],
    edits: Sequence[Edit | Sequence[Edit]],
    tolerance: float = 1e-4,
) -> None:
    """Edited results equal the plain way's: log probabilities, ranks and top tokens."""
    answers = [[(7 * i) % 250, (11 * i + 3) % 250] for i in range(len(prompts))]
    readout = model.evaluate(prompts, edits, answers)
    for p, prompt in enumerate(prompts):
        for e, (edit, expected) in enumerate(
            zip(edits, plain_each(model, prompt, edits, p), strict=True)
        ):
            for a, answer in enumerate(answers[p]):
                got = readout.logprob[p, e, a]
                assert abs(float(got - expected[answer])) < tolerance, (p, edit)
                near = (expected - expected[answer]).abs() < 2 * tolerance
                rank = int((expected > expected[answer]).sum())
                assert abs(int(readout.rank[p, e, a]) - rank) <= int(near.sum()) - 1
            # The same top token, unless two are as good as equal.
            top = readout.top[p, e]
            assert expected.max() - expected[top] < 2 * tolerance
