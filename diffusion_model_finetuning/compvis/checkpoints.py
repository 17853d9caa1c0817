"""Which checkpoint a run goes on from, and how checkpoints are written and read."""

import re
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from evaluation.core.config import read_settings
from evaluation.core.errors import UserError
from evaluation.core.files import atomic, remove
from evaluation.core.tensors import check_finite, read_content

FREE = {"workers", "gradient_checkpointing"}  # settings that may change when a run is resumed


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and hold finite tensors and plain data only."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        check_finite(checkpoint["state_dict"], path)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        try:
            checkpoint = read_content(path)
        except UserError as error:
            raise UserError(f"--resume {error}; or {earlier(Path(path))}") from error
        if "optimizer_states" not in checkpoint:
            raise UserError(f"--resume {path}: has no optimizer state; start from it with --model {path}")
        return checkpoint


def saved(folder: Path) -> dict[int, Path]:
    """Step -> checkpoint, in order; files of other names are the user's."""
    paths = [path for path in folder.glob("*.ckpt") if re.fullmatch(r"[0-9]+", path.stem) and path.is_file()]
    return {int(path.stem): path for path in sorted(paths, key=lambda path: int(path.stem))}


def earlier(path: Path) -> str:
    """Advice for one whose checkpoint is damaged."""
    before = [known for known in saved(path.parent).values() if known.name < path.name]
    return f"go on from an earlier one with --resume {before[-1]}" if before else "start anew: --resume never"


def resumed(resume: str, config: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, made with the same settings; None to start anew."""
    if resume == "never":
        return None
    newest = [None, *saved(folder / "checkpoints").values()][-1]
    path = Path(resume) if resume.endswith(".ckpt") else newest
    if path is None:
        return None
    now, kept = decisive(config), folder / "project.yaml"
    before = decisive(OmegaConf.create(read_settings(kept))) if kept.exists() else now
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise UserError(
                f"--resume {resume}: {folder} was trained with {key}={before.get(key)}, not "
                f"{now.get(key)}; give the same settings, or --resume never to start anew"
            )
    return path


def forget(folder: Path) -> None:
    """Removes the checkpoints of a training that is to start anew."""
    for path in saved(folder / "checkpoints").values():
        remove(path)


def decisive(config: DictConfig) -> dict:
    """Settings that change what is learned; `batch_size` that of all processes together."""
    trainer = config.lightning.trainer
    settings = {"model.base_learning_rate": config.model.base_learning_rate}
    for section in ("model", "data"):
        params = OmegaConf.to_container(config[section].params)
        settings |= {f"{section}.params.{key}": params[key] for key in params if key not in FREE}
    settings["data.params.batch_size"] *= trainer.devices * trainer.num_nodes
    keys = ["accumulate_grad_batches", "gradient_clip_val", "precision"]
    if settings.get("model.params.one_cycle"):
        keys.append("max_steps")
    return settings | {f"lightning.trainer.{key}": trainer[key] for key in keys}
