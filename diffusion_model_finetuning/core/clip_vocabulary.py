"""CLIP's tokenizer, for models that come without one: built from the merges inside open-clip-torch."""

import gzip
from importlib.util import find_spec
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from evaluation.core.errors import UserError

MERGES = "bpe_simple_vocab_16e6.txt.gz"
SIZE, START, END = 49_408, "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of CLIP ViT-L/14 and of Stable Diffusion 1: 49,408 pieces, prompts of 77."""
    package = find_spec("open_clip")
    folder = Path(package.submodule_search_locations[0]) if package else None
    if not folder or not (folder / MERGES).exists():
        raise UserError(
            "--config is missing and open-clip-torch, which has CLIP's vocabulary, is not installed: name a "
            "diffusers folder with a tokenizer/, or pip install open-clip-torch"
        )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    count = SIZE - 2 * len(alphabet) - 2  # the file lists more merges than CLIP uses
    lines = gzip.decompress((folder / MERGES).read_bytes()).decode().split("\n")[1 : 1 + count]
    merges = [tuple(line.split()) for line in lines]
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *map("".join, merges), START, END]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocabulary, merges, pad_token=END, model_max_length=77)
