"""python -m evaluation.foreign: images and models made elsewhere, entered as runs."""

import json
import shutil
import tempfile
from dataclasses import asdict, replace

import pytest
from omegaconf import OmegaConf

from evaluation import foreign, predict, protocol, tables
from evaluation.answers.answer_set import AnswerSet, grid, read_manifest
from evaluation.core.errors import UserError
from evaluation.core.record import read_record, write_record
from evaluation.mini import dataset
from tests.synthetic import MODEL


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A protocol of 16 drawings of the miniature, and its file."""
    p = replace(
        protocol.load("mini"), name="small", themes=("Mosaic", "Rust", "Seed_Images", "Sketch"),
        objects=("Cats", "Sea"), targets=("Sketch", "Cats"), seeds=(1, 2),
    )  # fmt: skip
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(p).items() if k != "name"}
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return p, str(path)


def draw(folder, p, forgotten=None):
    """An answer set without manifest: drawings, of the photo where a style is forgotten."""
    folder.mkdir(parents=True)
    for theme, obj, seed in grid(p):
        shown = "Seed_Images" if theme == forgotten else theme
        dataset.image(shown, obj, seed).save(folder / f"{theme}_{obj}_seed{seed}.png")


def sampled(folder, *made_of, **more):
    """The manifest that our sampler begins with."""
    with tempfile.TemporaryDirectory() as empty:
        AnswerSet(empty, *made_of, **more)
        shutil.copy(f"{empty}/manifest.json", folder)


@pytest.fixture
def root(tmp_path, small):
    """The base model's answer set, and images made elsewhere that show no Sketch."""
    p, _ = small
    draw(tmp_path / "base/answers", p)
    sampled(tmp_path / "base/answers", p, MODEL)
    draw(tmp_path / "theirs/Sketch/answers", p, "Sketch")
    return tmp_path


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        foreign.main([*map(str, words)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_record_says_what_is_known_and_null_for_the_rest(root, small):
    run, base = root / "theirs/Sketch", root / "base/answers"
    foreign.main([str(run), "--protocol", small[1]])
    record = read_record(run)
    assert {key: record.pop(key) for key in ("commit", "versions", "finished", "tf32")}.keys()
    assert record == {
        "method": "theirs", "target": "Sketch", "variant": "foreign", "settings": {}, "seed": None,
        "foreign": True, "model": None, "model_path": None, "data": None, "from": None, "seconds": {},
        "peak_memory_bytes": None, "stored_bytes": None, "device": None,
    }  # fmt: skip
    manifest = read_manifest(run / "answers")
    assert (manifest["protocol"]["hash"], manifest["model"], manifest["run"]) == (small[0].hash, None, None)
    costs = ["--seconds", "90", "--memory-gb", "2.5", "--storage-mb", "0"]
    foreign.main([str(run), "--base", str(base), *costs])  # more is known: entered again
    record = read_record(run)
    assert record["model"] == MODEL and record["seconds"] == {"unlearn": 90}
    assert (record["peak_memory_bytes"], record["stored_bytes"]) == (2_500_000_000, 0)


def test_a_whole_model_sampled_here_keeps_its_manifest(root, small, capsys):
    run = root / "theirs/Sketch"
    sampled(run / "answers", small[0], "f" * 16, block=3)
    before = read_manifest(run / "answers")
    foreign.main([str(run), "--base", str(root / "base/answers")])
    assert read_manifest(run / "answers") == before and read_record(run)["model"] == MODEL
    (run / "answers/Rust_Sea_seed2.png").unlink()
    assert "go on with: python -m machine_unlearning.sample" in refusal(capsys, run)


def test_missing_images_are_listed_and_not_to_be_sampled_here(root, small, capsys):
    run = root / "theirs/Sketch"
    for name in ("Rust_Cats_seed1.png", "Sketch_Sea_seed2.png"):
        (run / "answers" / name).unlink()
    error = refusal(capsys, run, "--protocol", small[1])
    assert (
        "2 of 16 images are missing, first Rust_Cats_seed1.png; put them there, made by the same model"
        in error
    )
    assert not (run / "record.json").exists() and not (run / "answers/manifest.json").exists()


def test_names_and_folders_that_tables_would_not_find_are_refused(root, small, capsys):
    run, named = root / "theirs/Sketch", ["--protocol", small[1]]
    for method in ("../theirs", ".theirs", "a/b", "a b", "base", ""):
        words = [run, "--method", method] if method else [root / "a b/Sketch"]
        assert "not a name" in refusal(capsys, *words, *named)
    assert "tables look for runs at ROOT/METHOD/TARGET" in refusal(capsys, run, "--method", "ours", *named)
    assert "name it ROOT/theirs/Cats" in refusal(capsys, run, "--target", "Cats", *named)
    assert "no style or object is called 'Skecth'" in refusal(capsys, root / "theirs/Skecth", *named)
    assert "protocol small has no such images" in refusal(capsys, run.rename(root / "theirs/Monet"), *named)
    other = root / "theirs/Monet/../Sketch-seed1"
    (root / "theirs/Monet").rename(other)
    foreign.main([str(other), "--target", "Sketch", *named])
    assert read_record(root / "theirs/Sketch-seed1")["target"] == "Sketch"


def test_a_link_to_the_images_is_refused(root, small, capsys):
    (root / "theirs/Sketch/answers").rename(root / "elsewhere")
    (root / "theirs/Sketch/answers").symlink_to(root / "elsewhere")
    assert "a link will not do" in refusal(capsys, root / "theirs/Sketch", "--protocol", small[1])
    assert not (root / "elsewhere/manifest.json").exists()


def test_runs_and_answers_of_ours_are_refused(root, small, capsys):
    p, path = small
    run, base = root / "theirs/Sketch", root / "base/answers"
    assert "no manifest.json; name what it was sampled with" in refusal(capsys, run)
    sampled(run / "answers", p, MODEL)
    assert "so nothing was unlearned" in refusal(capsys, run, "--base", base)
    (run / "answers/manifest.json").unlink()
    sampled(run / "answers", p, MODEL, {"method": "esd"})
    assert "sampled from a run of esd" in refusal(capsys, run)
    (run / "answers/manifest.json").unlink()
    write_record(run, {"method": "theirs"})
    assert "holds a run of this project" in refusal(capsys, run, "--protocol", path)
    (run / "record.json").rename(run / "log.jsonl")
    assert "holds a run of this project" in refusal(capsys, run, "--protocol", path)


def test_another_protocol_is_refused(root, small, capsys):
    run, base = root / "theirs/Sketch", root / "base/answers"
    manifest = json.loads((base / "manifest.json").read_text())
    (base / "manifest.json").unlink()
    sampled(base, replace(small[0], steps=7), MODEL)
    error = refusal(capsys, run, "--protocol", small[1], "--base", base)
    assert "not a base model's answer set of protocol small" in error
    (run / "answers/manifest.json").write_text(json.dumps(manifest | {"model": None}))
    assert "manifest.json names protocol small; leave it out" in refusal(capsys, run, "--protocol", "mini")


def test_our_sampler_refuses_images_that_it_did_not_make(root, small):
    with pytest.raises(UserError, match="holds images made elsewhere"):
        AnswerSet(root / "theirs/Sketch/answers", small[0], MODEL)
    assert not (root / "theirs/Sketch/answers/manifest.json").exists()


@pytest.mark.parametrize("cost", ["-1", "nan", "inf", "much"])
def test_costs_are_numbers(root, cost, capsys):
    assert f"--seconds: {cost}: expected a number" in refusal(
        capsys, root / "theirs/Sketch", f"--seconds={cost}"
    )


def test_a_foreign_run_is_a_row_of_the_table(root, small, capsys):
    """Images of elsewhere to a table: their Sketch drawings are photos, so that UA is what the judge sees."""
    run, base = root / "theirs/Sketch", root / "base/answers"
    foreign.main([str(run), "--protocol", small[1], "--base", str(base)])
    predict.main([str(base), str(run / "answers"), "--device", "cpu"])
    capsys.readouterr()
    tables.main([str(root), "--format", "json", "--per-target"])
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["theirs"]["target"] == "Sketch" and rows["theirs"]["UA"] == 100
    assert rows["theirs"]["IRA"] == rows["base"]["IRA"]  # the other drawings are the same
    assert not {"seconds", "memory_GB", "storage_MB"} & {
        key for key, value in rows["theirs"].items() if value
    }
