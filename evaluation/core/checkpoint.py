"""A training's state in a file, so that the same command, run again, goes on where it was stopped."""

import time
from pathlib import Path

import torch

from evaluation.core.errors import UserError, refused
from evaluation.core.files import atomic
from evaluation.core.tensors import read_content

SECONDS = 120  # between saves, for trainings that count no steps


class Checkpoint:
    """`identity`: a digest of what makes a command the same; `parts`: all that has a `state_dict`."""

    def __init__(self, path: Path, identity: str, **parts):
        self.path, self.identity, self.parts = path, identity, parts
        self.saved = time.monotonic()

    def resume(self) -> dict:
        """Fills the parts from the file; -> what was kept beside them, {} if there is no file. Raises
        UserError if it is damaged, or another command's."""
        if not self.path.exists():
            return {}
        damaged = f"{self.path}: this saved state cannot be gone on with; remove it to start anew"
        with refused(damaged, UserError):
            kept = read_content(self.path)
        if not isinstance(kept, dict) or {"identity", *self.parts} - kept.keys():
            raise UserError(f"{self.path}: not a saved state of this training; remove it to start anew")
        if kept["identity"] != self.identity:
            raise UserError(f"{self.path}: of other settings or data than these; remove it to start anew")
        with refused(damaged, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
            for name, part in self.parts.items():
                part.load_state_dict(kept[name])
        return kept

    def due(self) -> bool:
        return time.monotonic() - self.saved > SECONDS

    def save(self, **numbers) -> None:
        """The parts' states, and numbers beside them."""
        self.saved = time.monotonic()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            torch.save({"identity": self.identity, **states, **numbers}, file)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
