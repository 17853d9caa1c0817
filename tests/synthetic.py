"""Protocols, predictions and answer sets made up for tests: no model, no classifier."""

from dataclasses import replace

import pyarrow as pa
from PIL import Image

from evaluation import protocol as protocols
from evaluation.answers.answer_set import AnswerSet, Cell, grid
from evaluation.answers.predictions import (
    DOMAINS,
    JudgedAnswers,
    Prediction,
    Predictions,
    arrays,
    write_predictions,
)
from evaluation.canvas import CHAIN, PHOTO
from evaluation.core.files import write_json
from evaluation.core.record import write_record
from evaluation.metrics.distances import FID
from evaluation.protocol import Protocol

MODEL = "0123456789abcdef"


def protocol(**changes):
    """Three styles and the photo theme, three objects, two seeds, 16 pixels; targets: all, if not named."""
    small = {
        "name": "small",
        "themes": ("Monet", PHOTO, "Sketch", "Winter"),
        "objects": ("Cats", "Sea", "Trees"),
        "seeds": (1, 2),
        "size": 16,
        "fid_extractor": "classifier",
        "fid_images": (1, 2),
    } | changes
    everything = tuple(name for name in (*small["themes"], *small["objects"]) if name != PHOTO)
    return replace(protocols.load("canvas"), **{"targets": everything} | small)


def predictions(protocol, see=lambda cell: (cell.theme, cell.object), sure=0.9):
    """One row for every cell; `see(cell)` is what the classifiers say: a theme and an object."""
    return [Prediction(*cell, *see(cell), 0.5, 0.5, sure, sure, "0" * 16) for cell in grid(protocol)]


def from_rows(rows: list[Prediction], protocol: Protocol) -> Predictions:
    """Predictions that lie in no file."""
    columns = {name: pa.array([getattr(row, name) for row in rows]) for name in Prediction._fields}
    for domain in DOMAINS:
        columns |= {name: columns[name].dictionary_encode() for name in (domain, f"{domain}_seen")}
    return arrays(pa.table(columns), protocol)


def seen(protocol, see=lambda cell: (cell.theme, cell.object)) -> Predictions:
    return from_rows(predictions(protocol, see), protocol)


def answer_set(folder, protocol, run=None, see=None, model=MODEL, images=False, judge="a" * 16):
    """A folder with a manifest, predictions unless `see` is None, and images of one colour each if wanted."""
    answers = AnswerSet(folder, protocol, model, run)
    if see:
        source = {"protocol": {"name": protocol.name, "hash": protocol.hash}, "model": model, "run": run}
        source |= {"style_classifier": judge, "object_classifier": judge}
        write_predictions(folder, predictions(protocol, see), source)
    for i, cell in enumerate(grid(protocol) if images else []):
        colour = (7 * i % 256, 31 * i % 256, 255 if run else 0)
        Image.new("RGB", (protocol.size, protocol.size), colour).save(answers.path(cell))


def run_folder(
    root, method, target, protocol, see=None, images=False, model=MODEL, judge="a" * 16, **changes
):
    """A finished run with its answer set, as evaluation.run and the sampler leave it; Sketch~Cats went on."""
    *earlier, own = target.split(CHAIN)
    record = {
        "method": method,
        "target": own,
        "variant": "canvas",
        "settings": {"lr": 1e-5},
        "seed": 0,
        "data": "mini",
        "from": None,
        "model": model,
        "model_path": "checkpoints/mini",
        "seconds": {"setup": 2.0, "unlearn": 8.0},
        "peak_memory_bytes": 3_000_000_000,
        "stored_bytes": 4_000_000,
    }
    if earlier:
        requests = [{"method": method, "target": request} for request in earlier]
        record |= {"from": str(root / method / CHAIN.join(earlier)), "earlier": requests}
    record |= changes
    folder = root / method / target
    write_record(folder, record)
    answer_set(folder / "answers", protocol, record, see, model, images, judge)
    return folder


def right(cell: Cell):
    return cell.theme, cell.object


def distances(run, values: dict[str, float], answers=None, **changes):
    """The fid.json of a run (or of `answers`): FID with each target left out."""
    answers = JudgedAnswers(answers or run / "answers")
    origin = {"extractor": "classifier", "weights": ["a" * 16], "data": "mini", "data_digest": "d" * 16}
    origin |= {"protocol": answers.protocol.hash, "images": answers.predictions.images} | changes
    values = {target: {"fid": value, "kid": value / 100, "kid_std": 0.1} for target, value in values.items()}
    write_json(answers.folder / FID, {"origin": origin, "values": values, "made_with": {}})
