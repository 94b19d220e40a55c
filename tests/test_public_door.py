"""What the public functions say of arguments that are something else, and of what they were not."""

import json
from pathlib import Path

import forked
import pytest

from icl_mech import layer_scan, vector_lens
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.patch import LayerScan
from icl_mech.prompts import Template
from icl_mech.results import Result
from icl_mech.tasks import Task

#: Every public function that takes a model first, with what else it needs.
FUNCTIONS = {
    "answer_scores": "'antonyms'",
    "check_model_support": "",
    "compare_prompts": "'a', 'b'",
    "find_decoder": "'antonyms'",
    "compare_vectors": "'antonyms'",
    "context_masking": "'antonyms'",
    "conflicting_tasks": "",
    "function_vectors": "'antonyms'",
    "head_ablation": "'antonyms'",
    "head_attribution": "'antonyms'",
    "knowledge_conflict": "'antonyms'",
    "label_scores": "'sentences/topic'",
    "layer_scan": "'antonyms'",
    "localize": "'antonyms'",
    "logit_lens": "'antonyms'",
    "mean_patching": "'letters'",
    "patch_contrasts": "[]",
    "patch_positions": "'antonyms'",
    "patchscope": "'antonyms'",
    "progressive_generation": "'antonyms'",
    "prompt_attention": "'a'",
    "prompt_lens": "'a'",
    "steer": "'a', None, ['b']",
    "task_decodability": "'letters'",
    "task_table": "'antonyms'",
    "task_vector_failures": "",
    "vector_lens": "'antonyms'",
    "vector_transfer": "'letters'",
    "vector_variability": "'letters'",
}


def test_what_is_no_model_says_how_to_load_one() -> None:
    """In a process of its own: here arguments are checked to be of the type that is asked for."""
    calls = {f"{name}('gpt2', {rest})": "load_model('gpt2')" for name, rest in FUNCTIONS.items()}
    calls["layer_scan(Linear(2, 2), 'antonyms')"] = "model is a Linear; expected a HookedModel"
    calls["layer_scan(None, 'antonyms')"] = "model is None (NoneType); expected a HookedModel"
    code = (
        "import json\n"
        "from torch.nn import Linear\n"
        "import icl_mech\n"
        "from icl_mech.errors import InputError\n"
        f"globals().update({{n: getattr(icl_mech, n) for n in {list(FUNCTIONS)!r}}})\n"
        "said = {}\n"
        f"for call in {list(calls)!r}:\n"
        "    try:\n        eval(call)\n"
        "    except InputError as error:\n        said[call] = str(error)\n"
        "print(json.dumps(said))\n"
    )
    done = forked.run(code)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {call for call, expected in calls.items() if expected not in said.get(call, "")} == set()


def _task(answer: str, n: int = 14) -> Task:
    return Task.from_pairs({f"w{i}": f"{answer}{i % 2}" for i in range(n)}, "mine")


def test_a_scan_says_in_how_many_prompts_the_answer_takes_several_tokens(
    tiny_llama: HookedModel,
) -> None:
    scan = layer_scan(tiny_llama, _task("quite a long answer "), 4, 2, progress=False)
    assert (scan.data["n_tokens"] > 1).all()
    note = "mine: in 4 of 4 prompts the answer takes several tokens; first tokens are scored"
    assert note in scan.caveats()
    # Written before `n_tokens` was there.
    older = LayerScan(scan.data.drop_vars("n_tokens"), scan.provenance)
    assert note not in older.caveats()
    one = scan.data.assign(n_tokens=scan.data["n_tokens"].clip(max=1))
    assert note not in LayerScan(one, scan.provenance).caveats()


def test_vectors_of_a_small_task_say_that_they_overlap(tiny_llama: HookedModel) -> None:
    found = vector_lens(tiny_llama, _task("a"), n_prompts=20, n_shots=2, progress=False)
    assert any("different queries for 20 vectors" in note for note in found.caveats())
    few = vector_lens(tiny_llama, _task("a", 60), n_prompts=4, n_shots=2, progress=False)
    assert not any("different queries" in note for note in few.caveats())


def test_a_prompt_that_makes_a_run_slow_says_so(tiny_llama: HookedModel) -> None:
    encoder = tiny_llama.encoder("{x}->{y}", ["a"])
    with pytest.warns(UserWarning, match="prompts of more than 1,000 tokens: a run takes time"):
        encoder.encode((), "a b " * 1_000)


@pytest.mark.parametrize("text", ["{x}\0{y}", "{x}\ud800{y}", "{x}\x1b[1m{y}"])
def test_a_template_that_no_prompt_can_hold(text: str) -> None:
    with pytest.raises(InputError, match="^the template's text .* holds"):
        Template(text)


def test_a_result_without_tasks_says_so(tiny_llama: HookedModel, tmp_path: Path) -> None:
    scan = layer_scan(tiny_llama, _task("a"), 2, 2, progress=False)
    without = LayerScan(scan.data.isel(task=0).drop_vars("task"), scan.provenance)
    with pytest.raises(InputError, match="^a result of kind LayerScan has no tasks; it has: "):
        _ = Result.tasks.fget(without)  # type: ignore[attr-defined]
