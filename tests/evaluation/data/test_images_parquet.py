"""The published parquet form: the same rows as the folder, numbers rebuilt and checked."""

import io
import random

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as Encoded
from PIL import Image
from torch.utils.data import DataLoader

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data import parquet
from evaluation.data.images import CanvasImages
from evaluation.judges.features import real_features, real_images
from evaluation.judges.training_data import Labelled
from tests import synthetic

CELLS = [("Rust", "Cats"), ("Van_Gogh", "Cats"), (canvas.PHOTO, "Cats")]
NUMBERS = range(1, 21)


def jpeg(row) -> bytes:
    """Every row has an image of its own, and paintings have light and dark where their photo has."""
    file, chance = io.BytesIO(), np.random.default_rng(row[2])
    noise = chance.integers(0, 200, (12, 8, 3), dtype=np.uint8) + np.uint8(20 * CELLS.index(row[:2]))
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    return file.getvalue()


def caption(theme, obj):
    return f"A {obj} image in {'photo' if theme == canvas.PHOTO else theme.replace('_', ' ')} style"


def write_folder(root, rows):
    for row in rows:
        path = canvas.image_path(root, *row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(row))
    return root


def write_shards(root, rows, names=False, shards=2):
    """`rows` in the order given; `names`: with file names, as a push from an image folder leaves them."""
    table = Dataset.from_list(
        [
            {
                "image": {"bytes": jpeg(row), "path": f"{row[2]}.jpg" if names else None},
                "text": caption(*row[:2]),
            }
            for row in rows
        ],
        features=Features({"image": Encoded(), "text": Value("string")}),
    )
    (root / "data").mkdir(parents=True)
    for i in range(shards):
        part = table.shard(shards, i, contiguous=True)
        part.to_parquet(root / "data" / f"train-{i:05}-of-{shards:05}.parquet", batch_size=7)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


ROWS = [(*cell, number) for cell in CELLS for number in NUMBERS]


def test_same_rows_and_pixels_as_the_folder(tmp_path):
    folder = CanvasImages(write_folder(tmp_path / "folder", ROWS), CELLS, canvas.TEST, 8)
    shards = CanvasImages(write_shards(tmp_path / "shards", ROWS), CELLS, canvas.TEST, 8)
    assert folder.rows == shards.rows and shards.shards is not None and folder.shards is None
    for i in range(len(folder)):
        a, b = folder[i], shards[i]
        assert torch.equal(a.pop("image"), b.pop("image")) and a == b
        assert torch.equal(folder.photo(i), shards.photo(i))
    assert shards.original(shards.rows[0]).size == (8, 12)
    assert [file.name for file in shards.files] == [f"train-0000{i}-of-00002.parquet" for i in range(2)]
    batch = next(iter(DataLoader(shards, 6, num_workers=1)))  # a worker process reads them too
    assert torch.equal(batch["image"][5], shards[5]["image"])


@pytest.mark.parametrize("source", ["folder", "shards", "mini"])
def test_training_and_test_images_are_disjoint(source, tmp_path):
    root = {"folder": write_folder, "shards": write_shards, "mini": lambda *_: "mini"}[source](tmp_path, ROWS)
    train = CanvasImages(root, CELLS[:1], size=8)
    test = CanvasImages(root, CELLS[:1], canvas.TEST, 8)
    assert not set(train.rows) & set(test.rows)
    assert sorted(row[2] for row in train.rows + test.rows) == list(NUMBERS)
    pixels = [{item["image"].numpy().tobytes() for item in images} for images in (train, test)]
    assert not pixels[0] & pixels[1] and len(pixels[0] | pixels[1]) == 20


def test_shuffled_rows_are_refused_in_one_sentence(tmp_path):
    rows = random.Random(0).sample(ROWS, len(ROWS))
    with pytest.raises(UserError, match=r"the rows are shuffled or incomplete .*; use the folder form$"):
        CanvasImages(write_shards(tmp_path, rows), CELLS, (1,), 8)


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:19] + ROWS[20:],  # one row lost
        ROWS[:10] + ROWS[20:40] + ROWS[10:20] + ROWS[40:],  # a cell in two places
        ROWS + ROWS[:20],  # a cell twice
    ],
)
def test_rows_whose_number_cannot_be_told(rows):
    with pytest.raises(UserError, match=r"Rust/Cats: \d+ rows together"):
        parquet.numbers_by_place([row[:2] for row in rows], "data")


def test_file_names_give_the_numbers_whatever_the_order(tmp_path):
    rows = random.Random(0).sample(ROWS, len(ROWS))
    shards = CanvasImages(write_shards(tmp_path / "shards", rows, names=True), CELLS, (7, 19), 8)
    folder = CanvasImages(write_folder(tmp_path / "folder", ROWS), CELLS, (7, 19), 8)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(folder, shards, strict=True))
    zero_based = [(*row[:2], row[2] - 1) for row in ROWS]  # such names say nothing of ours
    assert parquet.read_rows(parquet.shard_files(write_shards(tmp_path / "zero", zero_based, True))) == ROWS
    write_shards(tmp_path / "twice", [*rows, rows[0]], names=True)
    with pytest.raises(UserError, match="is there twice"):
        CanvasImages(tmp_path / "twice", CELLS, (7,), 8)


def test_captions():
    assert parquet.cell_of("An Architectures image in Van Gogh style") == ("Van_Gogh", "Architectures")
    assert parquet.cell_of("A Cats image in photo style") == (canvas.PHOTO, "Cats")
    assert parquet.cell_of("A Cats image in Photo style.") == (canvas.PHOTO, "Cats")
    assert parquet.cell_of("A Sea image in Crypto Punks style") == ("Crypto_Punks", "Sea")
    for wrong in ("A Cats image in Nobody style", "A Cat image in Rust style", "a picture"):
        with pytest.raises(UserError, match="caption"):
            parquet.cell_of(wrong)


def test_incomplete_and_damaged_shards(tmp_path):
    data = write_shards(tmp_path, ROWS, shards=3) / "data"
    content = (data / "train-00001-of-00003.parquet").read_bytes()
    (data / "train-00001-of-00003.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"00001-of-00003\.parquet: not a readable parquet file"):
        CanvasImages(tmp_path, CELLS, (1,), 8)
    (data / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="2 of 3 parquet shards, the first missing is number 1"):
        CanvasImages(tmp_path, CELLS, (1,), 8)


def test_missing_images(tmp_path):
    write_shards(tmp_path, ROWS)
    with pytest.raises(UserError, match=r"1 of 2 images are missing, first .*Rust/Sea/1\.jpg"):
        CanvasImages(tmp_path, [("Rust", "Cats"), ("Rust", "Sea")], (1,), 8)


def test_what_judges_and_fid_read(tmp_path):
    """The classifiers' training images, and the features of real images, are those of the folder."""
    protocol = synthetic.protocol(
        themes=("Rust", canvas.PHOTO), objects=("Cats",), size=8, fid_extractor="torchvision"
    )
    read = {}
    for form, root in {
        "folder": write_folder(tmp_path / "folder", ROWS),
        "shards": write_shards(tmp_path / "shards", ROWS),
    }.items():
        images = CanvasImages(root, CELLS, (1, 20), 8)
        labelled = Labelled(images, ["Rust", "Van_Gogh", canvas.PHOTO], ["Cats"], 6)
        pixels = torch.stack([labelled[i][0] for i in range(len(labelled))])

        def extractor():
            return lambda pictures: np.stack(
                [np.asarray(picture, np.float32).ravel() for picture in pictures]
            )

        real = real_images(str(root), protocol)
        features = real_features(real, protocol, ["w"], extractor, tmp_path / form / "cache")
        assert features.array.shape == (4, 12 * 8 * 3)  # in their own size: this extractor resizes by itself
        read[form] = real.rows, features.digest, pixels, labelled.labels, torch.from_numpy(features.array)
    assert read["folder"][:2] == read["shards"][:2]
    assert all(torch.equal(a, b) for a, b in zip(read["folder"][2:], read["shards"][2:], strict=True))
