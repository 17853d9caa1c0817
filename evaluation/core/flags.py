"""What flags of a command line may be: types for argparse, which names the flag in its message."""

import argparse
import math
import os
import re
from pathlib import Path

from evaluation.core.errors import UserError


def whole(low: int = 1, high: float = math.inf):
    """A whole number from `low` to `high`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            expected = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, {expected}")
        return value

    return number


def decimal(low: float = 0, high: float = math.inf):
    """A finite number from `low` to `high`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            expected = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text}: expected a number, {expected}")
        return value

    return number


def new_path(text: str) -> str:
    """A file or folder to write, whose name a disk can hold."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected the name of a file or folder")
    if any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise argparse.ArgumentTypeError("a name of more than 255 letters; choose a shorter one")
    return text


def new_folder(text: str) -> str:
    """A folder to write, which may be there; no file is in its way."""
    for path in (Path(new_path(text)), *Path(text).parents):
        if path.exists() and not path.is_dir():
            raise argparse.ArgumentTypeError(f"{text}: {path} is a file; name a folder")
    return text


def data_set(text: str, flag: str = "--data") -> str:
    """A folder that is there, or the miniature's name; a UserError names the flag."""
    if not (Path(text).is_dir() or re.fullmatch(r"mini(:\d{1,9})?", text)):
        expected = "name the data set's, {theme}/{object}/{n}.jpg, or mini for the miniature's"
        raise UserError(f"{flag} {text}: no such folder; {expected}")
    return text


def device(text: str) -> str:
    """Its form only: whether there is such a device is `environment.find_device`'s to say."""
    if not re.fullmatch(r"cpu|(cuda|mps)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: no kind of device; name cpu, cuda or cuda:1")
    return text


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=device, help="cpu, cuda, cuda:1 ... (default: cuda if there is one)")


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model, and --config, which tells of a file what a folder has beside its weights."""
    parser.add_argument(
        "--model", default="checkpoints/mini", help="base model: diffusers folder or CompVis file"
    )
    sizes = "for a file: folder with its sizes and tokenizer (default: SD 1.5's, built in)"
    parser.add_argument("--config", help=sizes)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, help="of all that is drawn (0)")
