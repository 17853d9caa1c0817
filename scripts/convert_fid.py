"""Gives the `fid.json` files of results/mini their origin; removed after its one use

    python scripts/convert_fid.py BASE      BASE/answers: the base model sampled anew, judged and measured

The base model's file is copied from BASE, whose images must be those of its predictions. Methods' images are
gone: their FID stays, their origin names the images of the predictions beside them and the real images of BASE
(`mini`, which is drawn by code). What was not measured (KID) is absent.
"""

import json
import shutil
import sys
from pathlib import Path

from evaluation.answers.predictions import read_predictions
from evaluation.core.files import digest, write_json
from evaluation.metrics.distances import FID, read_distances

RESULTS = Path("results/mini")


def images(folder):
    return digest([row.sha256 for row in read_predictions(folder)[0]])


def convert(path, origin):
    before = json.loads(path.read_text())
    for key in ("extractor", "weights", "data", "protocol"):
        assert before[key] == origin[key], (path, key)
    value = {key: before[key] for key in ("real_images", "generated_images", "fid")}
    origin = origin | {"images": images(path.parent)}
    write_json(path, {"origin": origin, "values": {before["target"]: value}, "made_with": None})


def main(base):
    stored = RESULTS / "base/answers"
    assert images(stored) == images(base / "answers"), "other images than those of the stored predictions"
    content = read_distances(base / "answers", images(stored))
    before = json.loads((stored / FID).read_text())["fid"]
    assert abs(content["values"][""]["fid"] / before - 1) < 1e-6, "another FID than the stored one"
    for path in sorted(RESULTS.glob(f"*/*/answers/{FID}")):
        convert(path, content["origin"])
    shutil.copy(base / "answers" / FID, stored / FID)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
