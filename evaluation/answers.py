"""An answer set: one image for every (theme, object, seed) of a protocol, and a manifest of what made them.

Images are drawn in fixed blocks of the grid, so that a resumed or shared job feeds the network exactly the
batches an uninterrupted one would. Several processes may fill one folder: each block is claimed by a file.
"""

import json
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from evaluation import canvas
from evaluation.errors import UserError
from evaluation.files import write_json
from evaluation.protocol import Protocol, from_dict

STALE_SECONDS = 1800  # a claim this old on another machine belongs to a dead process


class Cell(NamedTuple):
    theme: str
    object: str
    seed: int


def grid(protocol: Protocol) -> list[Cell]:
    """All cells, in the order they are sampled."""
    return [Cell(t, o, s) for s in protocol.seeds for t in protocol.themes for o in protocol.objects]


def read_manifest(folder: str | Path) -> dict:
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise UserError(
            f"{folder}: no manifest.json, so not an answer set; make one with machine_unlearning.sample"
        )
    return json.loads(path.read_text())


class AnswerSet:
    """The folder of an answer set. Opening it writes the manifest, or checks the one that is there."""

    def __init__(
        self,
        folder: str | Path,
        protocol: Protocol,
        model: str | None,
        run: dict | None = None,
        block: int = 8,
    ):
        """`model`: the base model's fingerprint, `run`: the run's record, `block`: cells a batch."""
        self.folder, self.protocol = Path(folder), protocol
        wanted = {"protocol": protocol.__dict__ | {"hash": protocol.hash}, "model": model, "run": run}
        wanted = json.loads(json.dumps(wanted))
        path = self.folder / "manifest.json"
        if not path.exists():
            write_json(path, wanted | {"block": block})
        manifest = json.loads(path.read_text())
        for key in wanted:
            same = manifest[key] == wanted[key]
            if key == "protocol":
                same = manifest[key]["hash"] == protocol.hash
            if not same:
                raise UserError(
                    f"--out {folder}: holds an answer set of another {key}; choose another or remove this one"
                )
        self.block = manifest["block"]  # the first process decides, so that every block stays the same

    def path(self, cell: Cell) -> Path:
        return self.folder / canvas.answer_name(*cell, suffix="." + self.protocol.format)

    def missing(self) -> list[Cell]:
        return [cell for cell in grid(self.protocol) if not self.path(cell).exists()]

    def todo(self):
        """Yields (number, cells) of blocks with a missing image that no other process is at work on.

        Blocks claimed by others are passed over; what a dead process left claimed is taken over.
        """
        cells = grid(self.protocol)
        for number, start in enumerate(range(0, len(cells), self.block)):
            block = cells[start : start + self.block]
            if all(self.path(cell).exists() for cell in block) or not self._claim(number):
                continue
            try:
                # another process may have finished it just before the claim
                if not all(self.path(cell).exists() for cell in block):
                    yield number, block
            finally:
                self._claim_path(number).unlink(missing_ok=True)

    def _claim_path(self, number: int) -> Path:
        return self.folder / f".claim-{number}"

    def _claim(self, number: int) -> bool:
        path = self._claim_path(number)
        try:
            with open(path, "x") as file:
                file.write(f"{socket.gethostname()} {os.getpid()}")
            return True
        except FileExistsError:
            return _abandoned(path) and self._take_over(path) and self._claim(number)

    @staticmethod
    def _take_over(path: Path) -> bool:
        """Removes a dead process's claim, unless another process was faster and has claimed anew."""
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return True
        if not _abandoned(aside):
            aside.rename(path)
            return False
        aside.unlink()
        return True


def _abandoned(path: Path) -> bool:
    """Whether the process that wrote this claim is gone; if that cannot be told, whether it is too old."""
    try:
        host, _, pid = path.read_text().partition(" ")
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if host != socket.gethostname() or not pid.isdecimal():
        return age > (STALE_SECONDS if host else 60)  # one just being written is empty for a moment
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # a PermissionError: another user's, alive
    return False


def protocol_of(folder: str | Path) -> Protocol:
    """The protocol stored in an answer set's manifest."""
    content = dict(read_manifest(folder)["protocol"])
    content.pop("hash")
    return from_dict(content, f"{folder}/manifest.json")
