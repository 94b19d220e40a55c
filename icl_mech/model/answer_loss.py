"""The loss of answers as a function of what is written, for training a vector in a frozen model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.branches import Branch
from icl_mech.model.engine import Engine, Tokens, padded
from icl_mech.model.gradients import refuse_quantised
from icl_mech.model.network import Unembedding, architecture_of, final_stream
from icl_mech.model.verification import refuse_training
from icl_mech.model.writing import Write, writing


def refuse_no_gradients(engine: Engine) -> None:
    """Refuse models in which no vector is trained.

    Raises:
        InputError: where weights are quantised, the model is in training mode, or its blocks have
            no attention (state-space models).
    """
    bridge = engine.bridge
    refuse_quantised(
        bridge,
        "training a vector needs gradients",
        "theta and other vectors that are read need none",
    )
    refuse_training(bridge)
    if not any(name.endswith((".hook_attn_out", ".attn.hook_z")) for name in bridge.hook_dict):
        raise InputError(
            f"{architecture_of(bridge)} has no attention (a state-space model), in which no vector "
            "is trained; expected attention, or a vector that is read, such as theta"
        )


def answer_loss(
    engine: Engine,
    prompts: Sequence[Tokens],
    answers: Sequence[Tokens],
    branch: Branch,
) -> Float[Tensor, "prompt"]:
    """Minus the log probability (nats) of each prompt's answer, with edits in place.

    It can be differentiated with respect to the values of the edits. One forward pass over whole
    prompts and answers.

    Args:
        engine: whose model is run.
        prompts: token ids.
        answers: the token ids that follow each.
        branch: the edits, placed in the prompts.
    """
    whole = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    rows = torch.arange(len(prompts))
    writes = [
        Write(e, e.edit.layer % branch.n_layers, rows, rows, torch.tensor(e.positions))
        for e in branch.edits
    ]
    with torch.inference_mode(False), torch.enable_grad():
        with writing(engine.bridge, writes):
            stream = final_stream(engine.bridge, engine.tensor(padded(whole)))
        at = [
            (row, len(prompt) - 1 + i, token)
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
            for i, token in enumerate(answer)
        ]
        row, column, token = engine.tensor(at).unbind(dim=1)
        logits = Unembedding.of(engine.bridge).logits(stream[row, column])
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        each = torch.nn.functional.cross_entropy(wide, token.to(wide.device), reduction="none")
        return each.new_zeros(len(prompts)).index_add(0, row.to(each.device), each)
