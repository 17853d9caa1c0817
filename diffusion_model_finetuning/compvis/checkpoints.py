"""Which checkpoint a run goes on from, and how checkpoints are written and read."""

import pickle
import shutil
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from evaluation.core.errors import UserError
from evaluation.core.files import atomic

FREE = {"workers", "gradient_checkpointing"}  # settings that may change when a run is resumed


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and hold tensors and plain data only."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        with atomic(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UserError(f"--resume {path}: cannot be loaded; name an older one, or never") from error
        if "optimizer_states" not in checkpoint:
            raise UserError(f"--resume {path}: has no optimizer state; start from it with --model {path}")
        return checkpoint


def newest(folder: Path) -> Path | None:
    return max(folder.glob("*.ckpt"), key=lambda path: int(path.stem), default=None)


def resumed(resume: str, config: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, made with the same settings; None to start anew."""
    if resume == "never":
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    elif resume != "latest" and not resume.endswith(".ckpt"):
        raise UserError(f"--resume {resume}: choose latest, never, or a .ckpt file")
    path = Path(resume) if resume.endswith(".ckpt") else newest(folder / "checkpoints")
    if path is None:
        return None
    if not path.exists():
        raise UserError(f"--resume {path}: no such file; choose latest, never, or a .ckpt file")
    now, saved = decisive(config), folder / "project.yaml"
    before = decisive(OmegaConf.load(saved)) if saved.exists() else now
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise UserError(
                f"--resume {resume}: {folder} was trained with {key}={before.get(key)}, not "
                f"{now.get(key)}; give the same settings, or --resume never to start anew"
            )
    return path


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
