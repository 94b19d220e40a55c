"""The table of families in `icl_mech/README.md`, made by trying each. `make families` writes it."""

from pathlib import Path

from tiny_models import EVERY_FAMILY, bridged, random_model

from icl_mech.errors import ModelError
from icl_mech.layers import SITES
from icl_mech.model.choosing import choose_engine
from icl_mech.model.families import refuse_config
from icl_mech.model.placing import Placer

README = Path(__file__).parents[1] / "icl_mech" / "README.md"
BEGIN = "<!-- families: `make families` writes this table -->"
END = "<!-- families: end -->"
HEAD = ("family", "class in Transformers", "engine", "sites that it lacks", "why not shared")
#: What a family is called, where it is not the name of its configuration with capitals.
NAMES = {
    "qwen2": "Qwen 2",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
    "gpt2": "GPT-2",
    "gpt_neox": "GPT-NeoX, Pythia",
    "qwen3": "Qwen 3",
    "qwen3_moe": "Qwen 3 MoE",
    "phi3": "Phi-3",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "gptj": "GPT-J",
    "gpt_neo": "GPT-Neo",
    "falcon": "Falcon 7B",
    "falcon_new": "Falcon 11B, 40B",
    "falcon_alibi": "Falcon RW",
    "bloom": "BLOOM",
    "mpt": "MPT",
    "opt": "OPT",
    "opt_350m": "OPT 350M",
    "stablelm": "StableLM",
    "stablelm_parallel": "StableLM 2 12B",
    "cohere": "Cohere, Command R",
    "starcoder2": "StarCoder 2",
    "granite": "Granite",
    "granite_logits": "Granite, logits scaled",
    "gpt_oss": "GPT-OSS",
    "llama4": "Llama 4, text",
    "mamba2": "Mamba 2",
    "falcon_h1": "Falcon-H1",
    "qwen3_next": "Qwen 3 Next",
}


def table() -> str:
    """The table in Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *map(row, EVERY_FAMILY)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(family: str) -> tuple[str, ...]:
    """One family: which engine runs a tiny model of it, and what its blocks lack."""
    name, model = NAMES.get(family, family.capitalize()), random_model(family)
    architecture = f"`{model.config.architectures[0]}`"
    try:
        refuse_config(name, model.config)
    except ModelError as refused:
        return name, architecture, "refused", "", reason(refused)
    bridge = bridged(model, f"tiny-{family}")
    engine, why = choose_engine(bridge)
    lacks = lacking(Placer(bridge, name))
    return name, architecture, engine.name, lacks, why if engine.name == "plain" else ""


def reason(refused: ModelError) -> str:
    """Why a family is refused, out of the message."""
    return str(refused).partition("cannot be edited: ")[2].partition(". Expected")[0]


def lacking(placer: Placer) -> str:
    """Sites that no block has, then those that some blocks lack."""
    found = {site: len(placer.blocks_with(site)) for site in SITES}
    nowhere = [f"`{site}`" for site, n in found.items() if not n]
    somewhere = [f"`{site}`" for site, n in found.items() if 0 < n < placer.n_layers]
    partly = [f"{', '.join(somewhere)} in some blocks"] if somewhere else []
    return "; ".join([", ".join(nowhere), *partly] if nowhere else partly)


def written(readme: str) -> str:
    """What stands between the markers."""
    return readme.partition(BEGIN)[2].partition(END)[0].strip("\n")


def main() -> None:
    """Write the table into the README."""
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
