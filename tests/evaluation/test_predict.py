import gzip
import hashlib
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from evaluation import canvas, predict
from evaluation.answers.answer_set import AnswerSet, Cell, grid, protocol_of
from evaluation.answers.predictions import PREDICTIONS, read_predictions, write_predictions
from evaluation.core.errors import UserError
from evaluation.core.files import file_digest
from evaluation.judges import judging
from evaluation.judges.classifier import Classifier
from evaluation.protocol import Protocol
from tests.evaluation.data.test_picture_reader import damaged

THEMES, OBJECTS = ["Rust", "Sketch", "Van_Gogh"], ["Bears", "Cats", "Dogs"]


@pytest.fixture
def protocol():
    return Protocol(
        name="tiny", themes=("Rust", "Van_Gogh"), objects=("Cats", "Dogs"), seeds=(188, 288), targets=(),
        template=canvas.TEMPLATE, photo="Photo", size=24, noise="cell", scheduler="ddim", steps=1,
        guidance=1.0, precision="float32", format="png", count_photo=False, fid_extractor="classifier",
        fid_images=(1,),
    )  # fmt: skip


def classifier(task, labels, size=16, seed=0) -> Classifier:
    torch.manual_seed(seed)
    shape = {"img_size": size, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = Classifier(task, labels, "vit_tiny_patch16_224", shape).eval()
    torch.nn.init.normal_(model.vit.head.weight)  # far from equal probabilities
    return model


@pytest.fixture
def files(tmp_path):
    """The two classifier files, as flags; they look at images of two sizes."""
    flags = []
    for task, labels, size in (("style", THEMES, 16), ("object", OBJECTS, 24)):
        path = tmp_path / f"{task}.safetensors"
        classifier(task, labels, size).save(path, half=False)
        flags += [f"--{task}-classifier", str(path)]
    return flags


@pytest.fixture
def answers(tmp_path, protocol):
    """A complete answer set."""
    (tmp_path / "answers").mkdir()
    answers = AnswerSet(tmp_path / "answers", protocol, "base", {"method": "esd", "target": "Rust"})
    noise = np.random.default_rng(0)
    for cell in grid(protocol):
        Image.fromarray(noise.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(answers.path(cell))
    return answers


def run(*arguments):
    predict.main([*map(str, arguments), "--device", "cpu", "--batch", "3", "--workers", "2"])


def test_rows_are_what_each_classifier_says_of_each_image(answers, files, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as torch begins
    run(answers.folder, *files)
    rows, source = read_predictions(answers.folder)
    assert source["made_with"]["tf32"] is False
    judges = classifier("style", THEMES), classifier("object", OBJECTS, 24)
    assert [Cell(*row[:3]) for row in rows] == grid(answers.protocol)
    for row in rows:
        path = answers.folder / f"{row.theme}_{row.object}_seed{row.seed}.png"
        assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for judge, asked, *found in (
            (judges[0], row.theme, row.theme_seen, row.theme_prob, row.theme_seen_prob),
            (judges[1], row.object, row.object_seen, row.object_prob, row.object_seen_prob),
        ):
            probabilities = judge(judge.preprocess(Image.open(path))[None] / 255)[0].softmax(0).tolist()
            by_label = dict(zip(judge.labels, probabilities, strict=True))
            expected = max(by_label, key=by_label.get), by_label[asked], max(probabilities)
            assert found[0] == expected[0] and found[1:] == pytest.approx(expected[1:], abs=2e-6)
    assert len({(row.theme_seen, row.object_seen) for row in rows}) > 1
    made = source.pop("made_with")
    assert made["batch"] == 3 and made["device"] == "cpu" and "torch" in made["versions"]
    assert source == {
        "protocol": {"name": "tiny", "hash": answers.protocol.hash},
        "model": "base",
        "run": {"method": "esd", "target": "Rust"},
        "style_classifier": file_digest(files[1]),
        "object_classifier": file_digest(files[3]),
    }


def test_a_label_outside_the_protocol_can_be_seen(answers):
    """`Sketch` and `Bears` are labels, but no image was asked to show them."""
    judges = classifier("style", THEMES), classifier("object", OBJECTS)
    for judge, label in zip(judges, (1, 0), strict=True):
        judge.vit.head.bias.data[label] = 100
    rows = judging.judge(answers.folder, grid(answers.protocol), *judges)
    assert {(row.theme_seen, row.object_seen) for row in rows} == {("Sketch", "Bears")}


def test_batch_changes_nothing(answers):
    judges, cells = (classifier("style", THEMES), classifier("object", OBJECTS, 24)), grid(answers.protocol)
    alone, together = (judging.judge(answers.folder, cells, *judges, batch=batch) for batch in (1, 8))
    for a, b in zip(alone, together, strict=True):
        numbers = [value for value in a if isinstance(value, float)]
        assert numbers == pytest.approx([value for value in b if isinstance(value, float)], abs=1e-5)
        assert a[:5] + a[9:] == b[:5] + b[9:]


def test_judges_again_only_what_changed(answers, files, tmp_path, capsys, monkeypatch):
    run(answers.folder, *files)
    before = (answers.folder / PREDICTIONS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(predict, "judge", None)  # must not be called
        run(answers.folder, *files)
        rows, source = read_predictions(answers.folder)
        del source["made_with"]  # as older predictions, and those of another machine
        write_predictions(answers.folder, rows, source)
        run(answers.folder, *files)
    assert capsys.readouterr().out.count("already judged") == 2

    path = answers.path(Cell("Van_Gogh", "Cats", 288))
    stat = path.stat()
    Image.open(path).rotate(90).save(path)
    os.utime(path, (stat.st_atime, stat.st_mtime))
    run(answers.folder, *files)
    changed = [
        a != b for a, b in zip(lines(before), lines((answers.folder / PREDICTIONS).read_bytes()), strict=True)
    ]
    assert sum(changed) == 1 and changed[2 + grid(answers.protocol).index(("Van_Gogh", "Cats", 288))]

    classifier("object", OBJECTS, seed=5).save(files[3], half=False)
    judging.open_classifier.cache_clear()
    run(answers.folder, *files)
    assert read_predictions(answers.folder)[1]["object_classifier"] == file_digest(files[3])


@pytest.mark.parametrize("key, other", [("model", "another"), ("run", None), ("protocol", {"steps": 2})])
def test_predictions_under_another_manifest_do_not_count(answers, files, key, other):
    """The images are the same, and so are the rows."""
    run(answers.folder, *files)
    path = answers.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if key == "protocol":
        changed = Protocol(**asdict(answers.protocol) | other)
        other = asdict(changed) | {"hash": changed.hash}
    path.write_text(json.dumps(manifest | {key: other}))
    run(answers.folder, *files)
    source = read_predictions(answers.folder)[1]
    assert source[key] == ({"name": "tiny", "hash": changed.hash} if key == "protocol" else other)


def test_the_same_rows_are_the_same_bytes(answers, files):
    before = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        run(answers.folder, *files)
        before.add((answers.folder / PREDICTIONS).read_bytes())
        (answers.folder / PREDICTIONS).unlink()
    torch.set_num_threads(1)
    assert len(before) == 1


def lines(content) -> list[str]:
    return gzip.decompress(content).decode().splitlines()


def refused(capsys, *arguments) -> str:
    """The sentence on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.value.code == 2 and message.startswith("error: ")
    return message


def test_an_incomplete_answer_set_is_refused(answers, files, capsys):
    answers.path(Cell("Rust", "Dogs", 188)).unlink()
    answers.path(Cell("Rust", "Dogs", 288)).unlink()
    message = refused(capsys, answers.folder, *files)
    assert "2 of 8 images are missing, first Rust_Dogs_seed188.png" in message
    assert "python -m machine_unlearning.sample" in message
    assert not (answers.folder / PREDICTIONS).exists()


@pytest.mark.parametrize("name", damaged())
def test_an_unreadable_image_is_named(answers, files, capsys, name):
    path = answers.path(Cell("Rust", "Dogs", 188))
    path.write_bytes(damaged()[name])
    reason = "has too many pixels" if name == "large.png" else "not a readable image"
    assert f"{path}: {reason}" in refused(capsys, answers.folder, *files)
    assert not (answers.folder / PREDICTIONS).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_no_number_names_its_image(answers, value):
    judges = classifier("style", THEMES), classifier("object", OBJECTS)

    def forward(pixels):
        logits = judges[1].vit(pixels * 2 - 1)
        logits[(pixels.mean((1, 2, 3)) > 0.9), 1] = value
        return logits

    judges[1].forward = forward
    path = answers.path(Cell("Rust", "Dogs", 288))
    Image.new("RGB", (20, 20), "white").save(path)
    with pytest.raises(UserError, match=rf"{path}: the object classifier answers with NaN or infinity"):
        judging.judge(answers.folder, grid(answers.protocol), *judges, batch=3)


def test_counts_below_one_are_refused(answers, files, capsys):
    for flag in ("--batch", "--workers"):
        with pytest.raises(SystemExit):
            predict.main([str(answers.folder), *files, flag, "0"])
        assert f"argument {flag}: 0: expected a whole number, from 1" in capsys.readouterr().err


def test_unfit_or_absent_classifiers_are_refused(answers, files, tmp_path, capsys):
    swapped = ["--style-classifier", files[3], "--object-classifier", files[1]]
    assert "one of the style task was expected" in refused(capsys, answers.folder, *swapped)
    classifier("style", ["Rust", "Sketch"]).save(tmp_path / "few.safetensors")
    message = refused(capsys, answers.folder, "--style-classifier", tmp_path / "few.safetensors", *files[2:])
    assert "few.safetensors: does not know Van_Gogh" in message
    message = refused(capsys, answers.folder, "--style-classifier", "nowhere.pth", *files[2:])
    assert "--style-classifier nowhere.pth: no such file" in message


def test_default_classifiers(protocol, tmp_path, monkeypatch):
    mini = replace(protocol, themes=("Rust", "Seed_Images"), objects=("Cats",), size=64)
    assert judging.find_files(mini, (None, None)) == list(judging.MINI)
    near = replace(mini, themes=("Pencil_Drawing", "Sketch"))
    assert judging.find_files(near, (None, None)) == list(judging.NEAR)
    monkeypatch.chdir(tmp_path)
    others = ({"size": 512}, {"themes": ("Monet",)}, {"objects": ("Bears",)})
    large = [(replace(mini, **other), judging.PUBLISHED, "its authors publish it") for other in others]
    small = [(mini, judging.MINI, "make_mini.sh"), (near, judging.NEAR, "make_near.sh")]
    for sampled, (style, shape), hint in [*small, *large]:
        with pytest.raises(UserError, match=rf"--style-classifier {style}: no such file; .*{hint}"):
            judging.find_files(sampled, (None, None))
        (tmp_path / "a").touch()
        with pytest.raises(UserError, match=rf"--object-classifier {shape}: no such file; .*{hint}"):
            judging.find_files(sampled, ("a", None))


def test_a_foreign_folder_needs_only_a_protocol(answers, files, tmp_path, capsys):
    (answers.folder / "manifest.json").rename(tmp_path / "manifest.json")
    assert "no manifest.json" in refused(capsys, answers.folder, *files)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(answers.protocol).items()}
    for name in ("tiny", "other"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plain | {"steps": 1 + (name == "other")}))
    run(answers.folder, "--protocol", tmp_path / "tiny.yaml", *files)
    rows, source = read_predictions(answers.folder)
    assert len(rows) == 8 and source["run"] is source["model"] is None
    assert source["protocol"]["hash"] == answers.protocol.hash
    assert protocol_of(answers.folder).hash == answers.protocol.hash
    assert "leave it out" in refused(capsys, answers.folder, "--protocol", tmp_path / "other.yaml", *files)


@pytest.mark.parametrize("known", [False, True])
def test_a_foreign_folder_is_never_filled_by_our_sampler(answers, files, tmp_path, capsys, known):
    (answers.folder / "manifest.json").unlink()
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(answers.protocol).items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(plain))
    flags = ["--protocol", tmp_path / "tiny.yaml", *files]
    if known:  # its manifest was written by the first command
        run(answers.folder, *flags)
    path = answers.path(Cell("Rust", "Dogs", 188))
    path.unlink()
    message = refused(capsys, answers.folder, *flags)
    assert "1 of 8 images are missing, first Rust_Dogs_seed188.png" in message
    assert "machine_unlearning" not in message and "same model" in message


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".jpeg"])
def test_images_of_another_format_are_told(answers, files, capsys, suffix):
    for cell in grid(answers.protocol):
        answers.path(cell).rename(answers.path(cell).with_suffix(suffix))
    message = refused(capsys, answers.folder, *files)
    assert f"{suffix} images lie there, but protocol tiny says .png" in message
    assert "machine_unlearning" not in message
