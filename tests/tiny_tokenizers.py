"""Tiny tokenizers of every kind that models come with, trained on a few lines; no download."""

import json
from collections.abc import Iterable
from functools import cache

from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
BOS = "<s>"
EOS = "</s>"

#: Words that the trained tokenizers know as one token with the space before them.
WORDS = ("cat", "dog", "chat", "chien", "Paris", "France", "hot", "cold")
#: Words that they put together from several tokens, some of letters of two bytes.
RARE = ("zebrafish", "Bogotá", "naïveté", "東京")

_LINES = [
    *(f" {word} {word} {word} {word}" for word in (*WORDS, "a")),
    "Bogot naïvet quick brown fox jumps over the lazy dog's zebrafish",
    "-> -> -> ->->-> Q: A: = ( )",
]
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _train(
    tokenizer: Tokenizer, specials: Iterable[str], alphabet: Iterable[str] = ()
) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=3,
        special_tokens=list(dict.fromkeys(specials)),
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    return tokenizer


def byte_level(trim_offsets: bool = False, **specials: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE that cuts words as GPT-2 does, with the special tokens given."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    _train(tokenizer, specials.values(), _ALPHABET)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def gpt2() -> PreTrainedTokenizerFast:
    """Bytes, an end-of-text token and no BOS."""
    return byte_level(eos_token=END)


def trimmed() -> PreTrainedTokenizerFast:
    """The same vocabulary, but offsets that leave out spaces, as RoBERTa's do."""
    return byte_level(trim_offsets=True, eos_token=END)


def bytes_only() -> PreTrainedTokenizerFast:
    """One token per byte: a space is always a token of its own."""
    vocab = {symbol: i for i, symbol in enumerate([*_ALPHABET, END])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def llama3() -> PreTrainedTokenizerFast:
    """Bytes, another way to cut words, and a BOS that the tokenizer adds by itself."""
    bos, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    _train(tokenizer, (bos, end), _ALPHABET)
    _add_bos(tokenizer, bos)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=end)


def metaspace() -> PreTrainedTokenizerFast:
    """Like SentencePiece as Mistral has it: a space before a text that begins with none."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return _sentencepiece(tokenizer)


def llama2() -> PreTrainedTokenizerFast:
    """Like SentencePiece as Llama 2 has it: a space before every text, even before a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    return _sentencepiece(tokenizer)


def gemma() -> PreTrainedTokenizerFast:
    """Like SentencePiece as Gemma has it: no space is added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    return _sentencepiece(tokenizer)


def _sentencepiece(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Train, add a token for every byte (for characters never seen), and a BOS."""
    state = json.loads(_train(tokenizer, (BOS, EOS)).to_str())
    vocab = state["model"]["vocab"]
    vocab |= {byte: len(vocab) + i for i, byte in enumerate(_BYTES)}
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    _add_bos(tokenizer, BOS)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)


def _add_bos(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


_KINDS = {
    make.__name__: make for make in (gpt2, trimmed, bytes_only, llama3, metaspace, llama2, gemma)
}
NAMES = tuple(_KINDS)
#: Those that know " word" as one token, as nearly all models' tokenizers do.
TRAINED = tuple(name for name in NAMES if name != "bytes_only")
#: Those that write a space before the first word of a text by themselves.
ADDS_SPACE = ("metaspace", "llama2")


@cache
def tiny_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """One of `NAMES`, made once."""
    return _KINDS[name]()
