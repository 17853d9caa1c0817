"""Reads the folders of `Salesforce/blipdiffusion-controlnet`, as released or as today's libraries save them.

Widths and depths come from the tensors' shapes; what no shape tells, heads, epsilons and how many Q-Former
layers see the image, from `config.json`, which leaves out what is as usual: 64 numbers a head, every second
layer, and the epsilon of each library class.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
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


def block_sizes(weights: Weights, blocks: str, hidden: str, width: int, config: dict, eps: float) -> dict:
    """Of a transformer whose blocks are called `blocks`0, `blocks`1 ...; ValueError for as many heads as do
    not divide the width. `hidden`: a block's layer that is as wide."""
    depth = {name[len(blocks) :].partition(".")[0] for name in weights.tensors if name.startswith(blocks)}
    heads = int(config.get("num_attention_heads", width // 64))
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads for a width of {width}")
    sizes = {"width": width, "hidden": weights.width(f"{blocks}0.{hidden}"), "depth": len(depth)}
    return sizes | {"heads": heads, "eps": float(config.get("layer_norm_eps", eps))}


def tower_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of ImageTower."""
    _, positions, width = weights.shape("visual_encoder.embeddings.position_embedding")
    patch = weights.shape("visual_encoder.embeddings.patch_embedding.weight")[-1]
    sizes = block_sizes(weights, "visual_encoder.encoder.layers.", "mlp.fc1", width, config, 1e-6)
    return sizes | {"patch": patch, "positions": positions}


def qformer_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of QFormer."""
    bert = config.get("qformer_config", {})
    _, queries, width = weights.shape("query_tokens")
    return block_sizes(weights, "encoder.layer.", "intermediate.dense", width, bert, 1e-12) | {
        "queries": queries,
        "vocabulary": weights.width("embeddings.word_embeddings"),
        "positions": weights.width("embeddings.position_embeddings"),
        "projection": weights.width("proj_layer.dense1"),
        "frequency": int(bert.get("cross_attention_frequency", 2)),
        "tower": tower_sizes(weights, config.get("vision_config", {})),
    }


def text_sizes(weights: Weights, config: dict) -> dict:
    """Arguments of ContextText."""
    vocabulary, width = weights.shape("text_model.embeddings.token_embedding.weight")
    positions = weights.width("text_model.embeddings.position_embedding")
    sizes = block_sizes(weights, "text_model.encoder.layers.", "mlp.fc1", width, config, 1e-5)
    return sizes | {"vocabulary": vocabulary, "positions": positions}


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


def loaded(kind: type, folder: str | Path, **how):
    """What a library's class reads from a folder. Raises UserError."""
    with refused(f"{folder}: cannot be loaded", Exception):  # damaged files fail in any way
        return kind.from_pretrained(folder, local_files_only=True, **how)


def load_library(name: str, folder: str | Path):
    """One of `LIBRARY`, float32. Raises UserError unless all tensors, and no others, are there and finite."""
    module, report = loaded(LIBRARY[name], folder, torch_dtype=torch.float32, output_loading_info=True)
    if wrong := [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]:
        fault = f"{len(wrong)} tensors, such as {wrong[0]}"
        raise UserError(f"{folder}: not the {name} of its config.json ({fault})")
    check_finite(module.state_dict(), folder)
    return module


def load_words(path: str | Path, qformer: QFormer) -> BertTokenizer:
    """The Q-Former's tokenizer, from BERT's words, one a line. The release counts one more, `[DEC]`."""
    lines = Path(path).read_text("utf-8", "replace").rstrip("\n").split("\n")
    wanted = qformer.embeddings["word_embeddings"].num_embeddings
    if len(lines) not in (wanted, wanted - 1) or "[CLS]" not in lines:
        needed = f"the Q-Former needs the {wanted - 1} of bert-base-uncased"
        raise UserError(f"{path}: {len(lines)} words, but {needed}")
    return BertTokenizer({word: number for number, word in enumerate(lines)})


def load_tokenizer(folder: str | Path, text_encoder: ContextText) -> CLIPTokenizer:
    wanted = text_encoder.text_model["embeddings"]["token_embedding"].num_embeddings
    tokenizer = loaded(CLIPTokenizer, folder)
    if len(tokenizer) != wanted:
        there = f"{len(tokenizer)} words, but the text encoder has {wanted}"
        raise UserError(f"{folder}: {there}; take the release's")
    return tokenizer
