"""What is given in place of prompts, token ids, tensors or a model is named."""

import forked

#: Run in a process of its own: here arguments are checked to be of the types asked for.
PROGRAM = """
import numpy as np
import torch
from plain import prompt_of
from tiny_models import tiny_bridge
from icl_mech.errors import InputError
from icl_mech.heads import function_vectors, head_ablation, head_attribution, indirect_effects
from icl_mech.lens import logit_lens, vector_lens
from icl_mech.model import Edit, HookedModel
from icl_mech.one_prompt import prompt_attention
from icl_mech.task_vectors import TaskVector

bridge = tiny_bridge("llama")
model = HookedModel(bridge, "tiny")
prompt, resid = prompt_of([3, 4, 5]), torch.zeros(1, 32)
edit = Edit(0, torch.ones(32))

def says(ask):
    try:
        ask()
        print("nothing")
    except InputError as error:
        print(error)

for room in (head_attribution, head_ablation, function_vectors, logit_lens, vector_lens):
    says(lambda: room(bridge, "to_upper", progress=False))
    says(lambda: room("gemma", "to_upper", progress=False))
says(lambda: indirect_effects(bridge, [prompt], [prompt], [1]))
says(lambda: indirect_effects(model, [prompt], [prompt], ["Paris"]))
says(lambda: model.predict(prompt, [[1]]))
says(lambda: model.predict("Japan->", [[1]]))
says(lambda: model.capture(["Japan->"], [-1]))
says(lambda: model.capture([prompt], "final_arrow"))
says(lambda: model.residual_stream([prompt], "final_arrow"))
says(lambda: model.final_residuals([prompt]))
says(lambda: model.evaluate([prompt], edit, [[1]]))
says(lambda: model.evaluate([prompt], TaskVector("v", resid, (0,)), [[1]]))
says(lambda: model.evaluate([prompt], [1], [[1]]))
says(lambda: model.evaluate([prompt], [edit], ["Tokyo"]))
says(lambda: model.evaluate([prompt], [edit], [["Tokyo"]]))
says(lambda: model.evaluate([prompt], [edit], [1]))
says(lambda: model.evaluate([prompt], [edit], [[1.5]]))
says(lambda: model.generate(prompt, [None, None]))
says(lambda: model.sequence_logprob([prompt], [["Tokyo"]]))
says(lambda: model.sequence_logprob([prompt], ["Tokyo"]))
says(lambda: model.read(resid.numpy(), [[1]]))
says(lambda: model.read([[0.0] * 32], [[1]]))
says(lambda: model.read(resid[0], [[1]]))
says(lambda: model.read(torch.zeros(1, 31), [[1]]))
says(lambda: model.read(resid, [[1]], -1))
says(lambda: model.read(resid, [[1]], 1.5))
says(lambda: model.heads.attention("Japan->"))
says(lambda: model.heads.mean_outputs(prompt, -1))
says(lambda: model.heads.gradients([prompt], ["Tokyo"]))
says(lambda: model.heads.direct_effects([prompt], [1], ["Tokyo"]))
says(lambda: model.vocabulary.top_tokens(np.zeros((1, 1, 32)), 3))
says(lambda: Edit(0, [1.0] * 32))
says(lambda: Edit(0, np.ones(32)))
says(lambda: prompt_attention(model, prompt, [1]))
says(lambda: prompt_attention(model, prompt, [(1,)]))
says(lambda: vector_lens(model, "to_upper", naming={"to_upper": "upper case"}, progress=False))
says(lambda: model.predict([prompt], np.array([[1]])))
says(lambda: model.predict((prompt,), torch.tensor([[1]])))
"""

WORD = (
    "answers holds the word {0!r} where token ids are meant; expected whole numbers, as "
    "encoder.first_tokens(prompt, [{0!r}]) gives them"
)
TENSOR = "; expected a torch tensor [row, d_model] with 32 numbers in the last axis"
FROM_BRIDGE = "model is a TransformerBridge; expected a HookedModel, from load_model(bridge)"
FROM_NAME = "model is 'gemma' (str); expected a HookedModel, from load_model('gemma')"
SINGLE = "prompts is a single Prompt; expected a list of prompts: [prompt]"
TEXT = "prompts is the text 'Japan->'; expected a list of prompts"
EXPECTED = [
    *[FROM_BRIDGE, FROM_NAME] * 5,
    FROM_BRIDGE,
    WORD.format("Paris"),
    SINGLE,
    TEXT,
    "prompts holds 'Japan->'; expected prompts, as an encoder makes them: "
    "model.encoder(template, words).encode(pairs, query)",
    *["roles is the text 'final_arrow'; expected a list of roles, as ['final_arrow']"] * 2,
    "a group is a single Prompt; expected a list of prompts: [prompt]",
    "edits is a single Edit; expected a list of edits: [edit]",
    "edits is a single TaskVector; expected a list of edits: [edit]",
    "edits is 1; expected a list of edits",
    WORD.format("Tokyo"),
    WORD.format("Tokyo"),
    "answers holds 1 where a row of token ids is meant; expected a list of ids for each prompt, "
    "as [[5], [7, 9]]",
    "answers holds 1.5 where a token id is meant; expected a whole number",
    "2 edits of a single prompt; expected one, or [prompt]",
    WORD.format("Tokyo").replace("answers", "continuations"),
    "continuations is the text 'Tokyo'; expected a list of rows of token ids",
    f"resid is a ndarray{TENSOR}: torch.from_numpy(...) makes one",
    f"resid is a list{TENSOR}",
    f"resid has the shape [32]{TENSOR}",
    f"resid has the shape [1, 31]{TENSOR}",
    "n_best is -1; expected 0 to 257, the vocabulary",
    "n_best is 1.5; expected a whole number",
    TEXT,
    SINGLE,
    WORD.format("Tokyo"),
    WORD.format("Tokyo").replace("answers", "rivals"),
    "vectors is a ndarray; expected a torch tensor [group, row, d_model] with 32 numbers in the "
    "last axis: torch.from_numpy(...) makes one",
    "value is a list; expected a TaskVector, a torch tensor [d], or [prompt, d] for one per prompt",
    "value is a ndarray of the shape [32]; expected a TaskVector, a torch tensor [d], or "
    "[prompt, d] for one per prompt",
    "heads holds 1; expected pairs (layer, head), as (9, 3)",
    "heads holds (1,); expected pairs (layer, head), as (9, 3)",
    "naming['to_upper'] is the text 'upper case'; expected a list of words: ['upper', 'case']",
    "nothing",
    "nothing",
]


def test_what_was_meant_is_named() -> None:
    done = forked.run(PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == EXPECTED
