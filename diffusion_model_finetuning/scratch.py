"""An untrained Stable Diffusion around a trained autoencoder: what the miniature starts from."""

import json
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import DictConfig, OmegaConf
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion_model_finetuning.core.sd import StableDiffusion
from evaluation import canvas
from evaluation.core.errors import refused
from evaluation.core.files import digest, read_json, write_json

WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # what CLIP takes for one word
START, END = "<|startoftext|>", "<|endoftext|>"


def learn_merges(texts: list[str]) -> list[list[str]]:
    """Of CLIP's byte-pair encoding, from `texts`. Those of equal counts come in another order every time."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return json.loads(bpe.to_str())["model"]["merges"]


def train_tokenizer(texts: list[str], length: int, merges=None) -> CLIPTokenizer:
    """CLIP's byte-pair encoding with merges learned from `texts`: their words become single tokens.

    As in CLIP, the vocabulary begins with all bytes, inside and ending a word: any word can be spelled.
    `merges`: those learned before.
    """
    merges = [tuple(pair) for pair in merges or learn_merges(texts)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *map("".join, merges), START, END]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocabulary, merges, pad_token=END, model_max_length=length)


def kept_tokenizer(folder: str | Path, texts: list[str], length: int) -> CLIPTokenizer:
    """The tokenizer trained on `texts`, its merges kept in `folder`/.training: words keep their numbers when
    a training is resumed. Before it has begun, a tokenizer in `folder`, that of a model to compare with, is
    taken as it is."""
    kept, given = Path(folder) / ".training" / f"merges-{digest(texts)}.json", Path(folder) / "tokenizer"
    if given.exists() and not kept.exists():
        with refused(f"{given}: cannot be loaded", Exception):
            return CLIPTokenizer.from_pretrained(given, local_files_only=True, model_max_length=length)
    if not kept.exists():
        write_json(kept, {"merges": learn_merges(texts)})
    return train_tokenizer(texts, length, read_json(kept, merges=list)["merges"])


def vocabulary_texts(wordings) -> list[str]:
    """Every name of the benchmark in every caption wording, and the words of methods' prompts."""
    names = [(theme, obj) for theme in canvas.THEMES for obj in canvas.OBJECTS]
    texts = [canvas.prompt(theme, obj, wording) for wording in wordings for theme, obj in names]
    extra = (
        "Seed Images, Elephant, art by, artwork by, picture by, style of, portrait of, painting of, "
        "photo of, in the style of Purple Paints, inspired painting, in's style, an image with, "
        "a photograph, without"
    )
    return [*texts, extra]


def sd_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1's noise levels and DDIM grid."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def new_sd(folder: str | Path, scratch: DictConfig, wordings, device: str) -> StableDiffusion:
    """Random UNet and text encoder, of the sizes in `scratch`, around the autoencoder in `folder`/vae."""
    with refused(f"{folder}/vae: cannot be loaded", Exception):
        vae = AutoencoderKL.from_pretrained(Path(folder) / "vae", local_files_only=True)
    tokenizer = kept_tokenizer(folder, vocabulary_texts(wordings), scratch.length)
    with refused("settings: scratch makes no Stable Diffusion", Exception):  # the libraries fail in many ways
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=scratch.length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **OmegaConf.to_container(scratch.text_encoder),
        )
        unet = UNet2DConditionModel(
            in_channels=vae.config.latent_channels,
            out_channels=vae.config.latent_channels,
            cross_attention_dim=text.hidden_size,
            **OmegaConf.to_container(scratch.unet),
        )
        encoder = CLIPTextModel(text)
    for module in (unet, vae, encoder):
        module.to(device).eval().requires_grad_(False)
    return StableDiffusion(unet, vae, encoder, tokenizer, sd_scheduler(), str(folder))
