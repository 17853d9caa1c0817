"""An answer set: one image for every (theme, object, seed) of a protocol, and a manifest of what made them.

Images are drawn in fixed blocks of the grid, so that a resumed or shared job feeds the network exactly the
batches an uninterrupted one would.
"""

from pathlib import Path
from typing import NamedTuple

from evaluation import canvas
from evaluation.answers.claims import MANIFEST, agree, claimed
from evaluation.core.errors import UserError
from evaluation.core.files import read_json
from evaluation.core.record import RECORD, read_record, requests
from evaluation.protocol import Protocol, from_manifest, load


class Cell(NamedTuple):
    theme: str
    object: str
    seed: int


def grid(protocol: Protocol) -> list[Cell]:
    """All cells, in the order they are sampled."""
    return [Cell(t, o, s) for s in protocol.seeds for t in protocol.themes for o in protocol.objects]


def read_manifest(folder: str | Path) -> dict:
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise UserError(f"{folder}: no {MANIFEST}, so no answer set; make one with machine_unlearning.sample")
    return read_json(path, protocol=dict, model=str | None, run=dict | None)


def answer_paths(folder: str | Path, protocol: Protocol) -> list[Path]:
    """Where the images of all cells are, or are to be, in the order of the grid."""
    suffix = "." + protocol.format
    return [Path(folder) / canvas.answer_name(*cell, suffix=suffix) for cell in grid(protocol)]


def image_paths(folder: str | Path, protocol: Protocol) -> list[Path]:
    """`answer_paths` of a complete answer set. Raises UserError if images are missing.

    Only what a model of ours made is sampled again, never mixed with another model's.
    """
    folder, suffix, paths = Path(folder), "." + protocol.format, answer_paths(folder, protocol)
    if not (missing := [path for path in paths if not path.exists()]):
        return paths
    advice = "put them there, made by the same model as the others"
    if others := sorted(folder.glob(f"{missing[0].stem}.*")):
        advice = f"{others[0].suffix} images lie there, but protocol {protocol.name} says {suffix}; "
        advice += "convert them, or name a protocol with their format"
    elif (folder / MANIFEST).exists() and read_manifest(folder)["model"]:
        advice = "go on with: python -m machine_unlearning.sample, as it began"
    count = f"{len(missing)} of {len(paths)} images are missing, first {missing[0].name}"
    raise UserError(f"{folder}: {count}; {advice}")


class AnswerSet:
    """The folder of an answer set. Opening it writes the manifest, or checks the one that is there."""

    def __init__(self, folder, protocol: Protocol, model: str | None, run=None, block=8, made_with=None):
        """`model`: the base model's fingerprint, `run`: the run's record, `block`: cells a batch.

        `block` and `made_with`, of core.environment, are the first process's: a resumed set keeps them.
        """
        self.folder, self.protocol = Path(folder), protocol
        if model and any(self.folder.glob("*_seed*.*")) and not (self.folder / MANIFEST).exists():
            raise UserError(f"--out {folder}: holds images made elsewhere (no {MANIFEST}); choose another")
        wanted = {"protocol": protocol.__dict__ | {"hash": protocol.hash}, "model": model, "run": run}
        self.block = agree(self.folder, wanted, "an answer set", block=block, made_with=made_with)["block"]

    def path(self, cell: Cell) -> Path:
        return self.folder / canvas.answer_name(*cell, suffix="." + self.protocol.format)

    def missing(self) -> list[Cell]:
        return [cell for cell in grid(self.protocol) if not self.path(cell).exists()]

    @property
    def blocks(self) -> list[list[Cell]]:
        """The cells that are drawn at once, and judged at once."""
        cells = grid(self.protocol)
        return [cells[start : start + self.block] for start in range(0, len(cells), self.block)]

    def todo(self, done=None):
        """Yields (claim, number, cells) of the blocks that are not `done(number, cells)`, by default those
        with a missing image; as `claims.claimed`."""
        done = done or (lambda number, cells: all(self.path(cell).exists() for cell in cells))
        numbered = enumerate(enumerate(self.blocks))
        for claim, block in claimed(self.folder, numbered, lambda block: done(*block)):
            yield claim, *block

    def check_complete(self) -> None:
        """UserError if other processes still draw images of it."""
        if left := len(self.missing()):
            lacking = f"{self.folder}: lacks {left} of its images, which are with other processes"
            raise UserError(f"{lacking}; run this command again when they end")


def protocol_of(folder: str | Path) -> Protocol:
    """The protocol stored in an answer set's manifest."""
    return from_manifest(read_manifest(folder)["protocol"], f"{folder}/{MANIFEST}")


def protocol_in(folder: Path, name: str | None) -> Protocol:
    """The protocol of an answer set, or the one named of a folder without manifest. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    named = load(name) if name else None
    if not (folder / MANIFEST).exists():
        if not named:
            absent = f"{folder}: no {MANIFEST}"
            raise UserError(f"{absent}; name what it was sampled with, such as --protocol canvas")
        return named
    sampled = protocol_of(folder)
    if named and sampled.hash != named.hash:
        raise UserError(f"--protocol {name}: {folder}/{MANIFEST} names protocol {sampled.name}; leave it out")
    return sampled


def open_folder(folder: Path, name: str | None) -> Protocol:
    """The protocol of the complete answer set in a folder; one without manifest becomes a set of protocol
    `name` and an unknown model. Raises UserError."""
    sampled = protocol_in(folder, name)
    image_paths(folder, sampled)
    if not (folder / MANIFEST).exists():
        AnswerSet(folder, sampled, model=None)
    return sampled


def forgotten(record: dict, path: str | Path = RECORD) -> list[canvas.Target]:
    """The targets of a run, and of those that it went on from, in the order they were asked for.

    UserError that begins with `path`, where the record lies, if it names none.
    """
    text = ",".join(request.target for request in requests(record, path))
    return list(dict.fromkeys(canvas.parse_targets(text, f"{path}: target")))


def target_of(folder: str | Path, asked: str | None = None) -> str | None:
    """What was forgotten by the model of an answer set: what the record beside it says, with commas, which
    `asked` must not contradict."""
    path = Path(folder).resolve().parent / RECORD
    if not path.exists():
        return asked
    targets = forgotten(read_record(path.parent), path)
    made = ",".join(map(str, targets))
    if asked and set(canvas.parse_targets(asked)) != set(targets):
        raise UserError(
            f"--target {asked}: {path} says that {made} was unlearned; correct --target or omit it"
        )
    return made
