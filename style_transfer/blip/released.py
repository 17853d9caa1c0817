"""Reads the folders of `Salesforce/blipdiffusion-controlnet`, as released or as today's libraries save them.

Widths and depths come from the tensors' shapes; what no shape tells, heads, epsilons and how many Q-Former
layers see the image, from `config.json`, which leaves out what is as usual: 64 numbers a head, every second
layer, and the epsilon of each library class.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
from transformers import BertTokenizer, CLIPTokenizer

from evaluation.core.errors import UserError, refused
from evaluation.core.files import read_json
from evaluation.core.tensors import check_finite
from style_transfer.blip.clip import ContextText
from style_transfer.blip.qformer import QFormer
from style_transfer.core.weights import Weights, read

METHOD = "BLIP-Diffusion"
FILES = ("model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "pytorch_model.fp16.bin")
UNFIT = (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError)
LIBRARY = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "controlnet": ControlNetModel}


def read_weights(folder: Path) -> Weights:
    """The first file of `FILES` there is, without the buffers that older libraries stored."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: none of {', '.join(FILES)} is in it; download the folder again")
    tensors = read({path.name: path}, [path.name], METHOD)[path.name].tensors
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    return Weights(kept, str(path), f"{METHOD}'s {folder.name}")


def depth(weights: Weights, prefix: str) -> int:
    """How many blocks there are: `prefix`0, `prefix`1, ..."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights.tensors if name.startswith(prefix)})


def heads(config: dict, width: int) -> int:
    """Of attention; ValueError for as many as do not divide the width."""
    count = int(config.get("num_attention_heads", width // 64))
    if count < 1 or width % count:
        raise ValueError(f"{count} heads for a width of {width}")
    return count


def tower_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of ImageTower."""
    _, positions, width = weights.shape("visual_encoder.embeddings.position_embedding")
    return {
        "width": width,
        "hidden": weights.width("visual_encoder.encoder.layers.0.mlp.fc1"),
        "depth": depth(weights, "visual_encoder.encoder.layers."),
        "heads": heads(config, width),
        "patch": weights.shape("visual_encoder.embeddings.patch_embedding.weight")[-1],
        "positions": positions,
        "eps": float(config.get("layer_norm_eps", 1e-6)),
    }


def qformer_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of QFormer."""
    bert = config.get("qformer_config", {})
    _, queries, width = weights.shape("query_tokens")
    return {
        "width": width,
        "hidden": weights.width("encoder.layer.0.intermediate.dense"),
        "depth": depth(weights, "encoder.layer."),
        "heads": heads(bert, width),
        "queries": queries,
        "vocabulary": weights.width("embeddings.word_embeddings"),
        "positions": weights.width("embeddings.position_embeddings"),
        "projection": weights.width("proj_layer.dense1"),
        "eps": float(bert.get("layer_norm_eps", 1e-12)),
        "frequency": int(bert.get("cross_attention_frequency", 2)),
        "tower": tower_sizes(weights, config.get("vision_config", {})),
    }


def text_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of ContextText."""
    vocabulary, width = weights.shape("text_model.embeddings.token_embedding.weight")
    return {
        "width": width,
        "hidden": weights.width("text_model.encoder.layers.0.mlp.fc1"),
        "depth": depth(weights, "text_model.encoder.layers."),
        "heads": heads(config, width),
        "vocabulary": vocabulary,
        "positions": weights.width("text_model.embeddings.position_embedding"),
        "eps": float(config.get("layer_norm_eps", 1e-5)),
    }


def load_own(make, sizes, folder: str | Path):
    """The module `make`, float32, with the tensors of a released folder. Raises UserError."""
    folder = Path(folder)
    weights, config = read_weights(folder), read_json(folder / "config.json")
    unfit = refused(f"{folder / 'config.json'}: does not fit the weights beside it", *UNFIT)
    with unfit, torch.device("meta"):  # no random numbers for weights that are about to be read
        module = make(**sizes(weights, config))
    weights.into(module.to_empty(device="cpu"))
    return module


def load_qformer(folder: str | Path) -> QFormer:
    return load_own(QFormer, qformer_sizes, folder)


def load_text_encoder(folder: str | Path) -> ContextText:
    return load_own(ContextText, text_sizes, folder)


def load_library(name: str, folder: str | Path):
    """One of `LIBRARY`, float32. Raises UserError unless all tensors, and no others, are there and finite."""
    with refused(f"{folder}: cannot be loaded", Exception):  # damaged files fail in any way
        module, report = LIBRARY[name].from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        raise UserError(
            f"{folder}: not the {name} of its config.json ({len(wrong)} tensors, such as {wrong[0]})"
        )
    check_finite(module.state_dict(), folder)
    return module


def load_words(path: str | Path, qformer: QFormer) -> BertTokenizer:
    """The Q-Former's tokenizer, from BERT's words, one a line. The release counts one more, `[DEC]`."""
    lines = Path(path).read_text("utf-8", "replace").rstrip("\n").split("\n")
    wanted = qformer.embeddings["word_embeddings"].num_embeddings
    if len(lines) not in (wanted, wanted - 1) or "[CLS]" not in lines:
        raise UserError(
            f"{path}: {len(lines)} words, but the Q-Former needs the {wanted - 1} of bert-base-uncased"
        )
    return BertTokenizer({word: number for number, word in enumerate(lines)})


def load_tokenizer(folder: str | Path, text_encoder: ContextText) -> CLIPTokenizer:
    wanted = text_encoder.text_model["embeddings"]["token_embedding"].num_embeddings
    with refused(f"{folder}: cannot be loaded", Exception):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != wanted:
        raise UserError(
            f"{folder}: {len(tokenizer)} words, but the text encoder has {wanted}; take the release's"
        )
    return tokenizer


def load_scheduler(folder: str | Path) -> PNDMScheduler:
    with refused(f"{folder}: cannot be loaded", Exception):
        return PNDMScheduler.from_pretrained(folder, local_files_only=True)
