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


def read_card(path: str | Path, config: str | Path | None = None) -> dict:
    """`canvas.json` of a model's folder, or of its `config`: which variant and protocol suit it, or {}."""
    path = config_folder(path, config) / CARD
    card = read_json(path) if path.exists() else {}
    return card and read_json(path, **{key: kind for key, kind in KINDS.items() if key in card})
