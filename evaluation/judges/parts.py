"""What judges and the network of FID make of an answer set block by block, kept until all blocks are there"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from evaluation.answers.answer_set import AnswerSet, Cell
from evaluation.answers.claims import claimed
from evaluation.answers.predictions import Prediction, write_predictions
from evaluation.core.files import digest, file_digest
from evaluation.core.pools import threads
from evaluation.core.tensors import read_metadata, read_tensors, save_tensors
from evaluation.judges import features
from evaluation.judges.judging import Judges


class Parts:
    """Of one answer set, in a hidden folder of it; several processes may add to them."""

    def __init__(self, answers: AnswerSet, judges: Judges, source: dict, network: list[Path], device: str):
        """`source` is `source_of` these judges; `network`: FID's files, or [] if there is none."""
        self.answers, self.judges, self.source = answers, judges, source
        self.weights = [file_digest(file) for file in network]
        self.extractor = features.open_extractor(answers.protocol, network, self.weights, device)
        self.folder = answers.folder / f".judged-{digest([source, self.weights])}"

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"

    def has(self, number: int, cells=()) -> bool:
        return self.path(number).exists()

    def add(self, number: int, cells: list[Cell], contents: dict[Cell, bytes]) -> None:
        """Judges the images of a block. Those in `contents` are not read from their files again."""
        paths = [self.answers.path(cell) for cell in cells]
        with threads() as pool, torch.inference_mode():
            images = list(pool.map(self.judges.load, paths, map(contents.get, cells)))
            rows, pictures = self.judges.look(cells, images, paths), [image.picture for image in images]
            tensors = {"features": torch.from_numpy(self.extractor()(pictures))} if self.weights else {}
        save_tensors(self.path(number), tensors, {"judged": json.dumps({"rows": rows})})

    def join(self, made_with: dict) -> bool:
        """Writes predictions and features and removes the parts, if all are there; whether they were."""
        paths = [self.path(number) for number in range(len(self.answers.blocks))]
        for _ in claimed(self.answers.folder, [("parts", None)], lambda _: not self.folder.exists()):
            if not all(path.exists() for path in paths):
                return False
            rows = [Prediction(*row) for path in paths for row in read_metadata(path, "judged")["rows"]]
            if self.weights:
                array = np.concatenate([read_tensors(path)["features"].numpy() for path in paths])
                kept = features.Features(array, digest([row.sha256 for row in rows]))
                folder, protocol = self.answers.folder, self.answers.protocol
                key = features.generated_key(folder, protocol, self.weights)
                features.keep(features.generated_path(folder, protocol), key, kept)
            source = self.source | {"made_with": made_with, "labels": self.judges.labels}
            write_predictions(self.answers.folder, rows, source)
            shutil.rmtree(self.folder)
        return True
