"""What a model's folder says of the model, read without loading it."""

from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.files import read_json

CARD = "canvas.json"  # beside model_index.json: which variant, protocol and data suit this model
MODEL = "model_index.json"  # of a whole diffusers folder: written last
KINDS = {"variant": str, "protocol": str, "data": str, "guidance": int | float, "photo_guidance": int | float}
SD15 = Path(__file__).parent / "sd15"  # sizes and schedule of SD 1.5; no weights, no tokenizer


def config_folder(path: str | Path, config: str | Path | None, flag: str = "--model") -> Path:
    """The folder with the sizes of a model: its own, or for a file `config` (default: SD 1.5's)."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{flag} {path}: no such diffusers folder or CompVis file")
    if config and not Path(config).is_dir():
        raise UserError(
            f"--config {config}: no such folder; name the diffusers folder of {path}'s base model"
        )
    return path if path.is_dir() else Path(config or SD15)


def sizes(path: str | Path, config: str | Path | None, part: str, **kinds) -> dict:
    """`config.json` of a network in a model's folder, or for a file in its `config`, with keys `kinds`.

    UserError, as when the model is loaded, if there is none.
    """
    folder = config_folder(path, config)
    if not (file := folder / part / "config.json").exists():
        raise UserError(f"{folder}: no file {part}/config.json, so not a diffusers Stable Diffusion folder")
    return read_json(file, **kinds)


def downscale(path: str | Path, config: str | Path | None = None) -> int:
    """Pixels of an image's side for each of its latents'."""
    return 2 ** (len(sizes(path, config, "vae", block_out_channels=list)["block_out_channels"]) - 1)


def edits(folder: str | Path) -> bool:
    """Whether the model in a folder takes a photo beside the noisy latents. A file alone does not tell."""
    channels = sizes(folder, None, "vae", latent_channels=int)["latent_channels"]
    return sizes(folder, None, "unet", in_channels=int)["in_channels"] == 2 * channels


def check_averages(path: str | Path, weights: str) -> None:
    """UserError for the `weights` ema of a folder."""
    if weights == "ema" and Path(path).is_dir():
        raise UserError(f"--weights ema: the folder {path} has one set of weights; only files have both")


def read_card(path: str | Path, config: str | Path | None = None) -> dict:
    """`canvas.json` of a model's folder, or of its `config`: which variant and protocol suit it, or {}."""
    path = config_folder(path, config) / CARD
    card = read_json(path) if path.exists() else {}
    return card and read_json(path, **{key: kind for key, kind in KINDS.items() if key in card})
