"""Fine-tune Stable Diffusion, or train InstructPix2Pix, in the CompVis code structure

    python -m diffusion_model_finetuning.compvis.main --base sd --name style50 --model SD --data DATA \\
        lightning.trainer.devices=8
    python -m diffusion_model_finetuning.compvis.main --base mini_ip2p --name ip2p-compvis \\
        --model checkpoints/mini --data data/mini-train

The YAML files of --base (`configs/`, or your own) are laid over one another, `key=value` over them all.

    LOGS/NAME/checkpoints/STEP.ckpt    CompVis files with optimizer state; the same command goes on from there
    LOGS/NAME/model.ckpt               the finished model, a CompVis file with raw and averaged weights
    LOGS/NAME/project.yaml             the settings as resolved
"""

import argparse
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_model_finetuning.compvis.config import check, instantiate, load
from diffusion_model_finetuning.core.card import config_folder
from evaluation.core import flags
from evaluation.core.errors import Finished, UserError, brief, command, early


def parse(argv=None) -> argparse.Namespace:
    """The flags; `config` has the settings but for Lightning's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", required=True, nargs="+", help="YAML files: sd, ip2p, mini_sd, mini_ip2p, or yours"
    )
    parser.add_argument("--name", type=folder_name, required=True, help="of the run's folder")
    parser.add_argument(
        "--model", help="diffusers folder or CompVis file to start from (model.params.ckpt_path)"
    )
    parser.add_argument(
        "--config", help="folder with the tokenizer and sizes of a CompVis file (model.params.config_path)"
    )
    parser.add_argument("--data", help="folder {theme}/{object}/{number}.jpg (data.params.root)")
    parser.add_argument(
        "--logs", type=flags.new_path, default="runs", help="folder of the run's folder (default: runs)"
    )
    parser.add_argument(
        "--resume", default="latest", metavar="latest|never|FILE.ckpt", help="default: latest, if any"
    )
    parser.add_argument(
        "--log", choices=("csv", "tensorboard"), help="write the losses there; default: nowhere"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    args = parser.parse_intermixed_args(argv)
    # --base takes all words up to the next flag
    args.overrides = [word for word in args.base if "=" in word] + args.overrides
    args.base = [word for word in args.base if "=" not in word]
    if args.resume.endswith(".ckpt") and not Path(args.resume).is_file():
        raise UserError(f"--resume {args.resume}: no such file; choose latest, never, or a .ckpt file")
    if args.resume not in ("latest", "never") and not args.resume.endswith(".ckpt"):
        raise UserError(f"--resume {args.resume}: choose latest, never, or a .ckpt file")
    params = with_flags(check(args.base, args.overrides), args)
    config_folder(params.model.params.ckpt_path, params.model.params.config_path)
    flags.data_set(params.data.params.root)
    return args


def folder_name(text: str) -> str:
    """For argparse: a name of one folder."""
    if text == ".." or Path(flags.new_path(text)).name != text:
        raise argparse.ArgumentTypeError(f"{text}: expected a name without folders; their place is --logs")
    return text


def with_flags(config: DictConfig, args: argparse.Namespace) -> DictConfig:
    """The settings with what flags say of the model and the data."""
    for flag, section, key in (
        ("model", "model", "ckpt_path"), ("config", "model", "config_path"), ("data", "data", "root"),
    ):  # fmt: skip
        config[section].params[key] = getattr(args, flag) or config[section].params.get(key)
        if config[section].params[key] is None and flag != "config":
            raise UserError(f"--{flag} is missing; see --help")
    return config


early(__name__, parse)

import contextlib
import logging
import sys
import warnings

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from diffusion_model_finetuning.compvis.checkpoints import WholeFiles, forget, resumed
from evaluation.core.environment import no_tf32
from evaluation.core.files import atomic
from evaluation.core.owner import alone

QUIET = (  # warnings of Lightning's
    "in eval mode",  # the frozen networks
    "dataloader is not resumable",  # batches are numbered by step
    "exists and is not empty",  # when resuming
    "LeafSpec",
)
LOGGERS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}


def make_trainer(config: DictConfig, folder: Path, log: str | None) -> pl.Trainer:
    """Lightning's Trainer; of checkpoints, the newest are kept."""
    try:
        checkpoints = ModelCheckpoint(
            folder / "checkpoints",
            filename="{step:07d}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            enable_version_counter=False,
            **config.lightning.checkpoint,
        )
        return pl.Trainer(
            **config.lightning.trainer,
            default_root_dir=folder,
            logger=LOGGERS[log](folder, name="log") if log else False,
            callbacks=[checkpoints],
            plugins=[WholeFiles()],
            enable_progress_bar=sys.stdout.isatty(),
            enable_model_summary=False,
        )
    except (MisconfigurationException, ModuleNotFoundError, TypeError, ValueError) as error:
        raise UserError(f"lightning settings or --log: {brief(error)}") from error


def fit(trainer: pl.Trainer, config: DictConfig, folder: Path, args: argparse.Namespace) -> None:
    """Trains, from the checkpoint to go on from, and writes the model."""
    if (folder / "model.ckpt").exists():
        raise Finished(f"{folder / 'model.ckpt'}: already trained")
    checkpoint = resumed(args.resume, config, folder)
    model = instantiate(config.model, "model", learning_rate=config.model.base_learning_rate)
    data = instantiate(config.data, "data")
    if trainer.is_global_zero:
        if args.resume == "never":
            forget(folder)
        with atomic(folder / "project.yaml") as temporary:
            OmegaConf.save(config, temporary)
    try:
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as end:  # Lightning's answer to Ctrl-C and SIGTERM
        raise end.__context__ or end from None
    if trainer.global_step < trainer.max_steps:  # by another limit, such as max_time
        raise UserError(f"{folder}: stopped early; run the same command again to go on")
    trainer.save_checkpoint(folder / "model.ckpt", weights_only=True)
    if trainer.is_global_zero and (loss := trainer.callback_metrics.get("val/loss")) is not None:
        print(f"{folder / 'model.ckpt'}: loss on held-out images {loss:.4f}")


@command
def main(argv=None):
    args = parse(argv)
    config = with_flags(load(args.base, args.overrides), args)
    folder = Path(args.logs) / args.name
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in QUIET:
        warnings.filterwarnings("ignore", message=f".*{text}")
    no_tf32()
    trainer = make_trainer(config, folder, args.log)
    with alone(folder, "--name") if trainer.is_global_zero else contextlib.nullcontext():
        fit(trainer, config, folder, args)


if __name__ == "__main__":
    main()
