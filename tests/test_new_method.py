"""scripts/new_method.sh, in a copy of the repository's files: a working method under the name given."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARSE = "from machine_unlearning.my_way import train; train.main(['--target', 'Skecth', '--out', 'run'])"


@pytest.fixture
def tree(tmp_path):
    leave = shutil.ignore_patterns("__pycache__")
    for name in ("machine_unlearning", "evaluation", "diffusion_model_finetuning", "style_transfer"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/new_method.sh", tmp_path / "scripts")
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    return tmp_path


def make(tree, *names):
    return subprocess.run(["bash", "scripts/new_method.sh", *names], cwd=tree, capture_output=True, text=True)


def test_a_copy_that_works_under_its_own_name(tree):
    done = make(tree, "my_way")
    assert done.returncode == 0 and "bash machine_unlearning/my_way/train.sh Sketch Cats" in done.stdout
    esd, mine = tree / "machine_unlearning/esd", tree / "machine_unlearning/my_way"
    assert {p.name for p in mine.iterdir()} == {p.name for p in esd.iterdir()}
    assert 'method="my_way"' in (mine / "train.py").read_text()
    for name in ("train.py", "train.sh", "eval.sh", "README.md"):
        assert "esd" not in (mine / name).read_text(), name
    title, *headings = [x for x in (mine / "README.md").read_text().splitlines() if x.startswith("#")]
    assert title == "# my_way"
    assert headings == [x for x in (esd / "README.md").read_text().splitlines() if x.startswith("## ")]
    parsed = subprocess.run([sys.executable, "-c", PARSE], cwd=tree, capture_output=True, text=True)
    assert parsed.returncode == 2 and "did you mean Sketch" in parsed.stderr
    (tree / "torch.py").write_text("raise RuntimeError")  # a wrong word is told before it is imported
    words = ["-m", "machine_unlearning.my_way.train", "--target", "Sketch", "--out", "run", "eta=-1"]
    answered = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True)
    assert answered.returncode == 2 and answered.stderr.startswith("error: eta=-1: expected a number")


TRANSFER = "from style_transfer import train; train.main(['my_way', '--out', 'run', 'lrr=1'])"


def test_a_copy_of_a_style_transfer_method(tree):
    done = make(tree, "--style-transfer", "my_way")
    assert done.returncode == 0 and "bash style_transfer/my_way/transfer.sh" in done.stdout
    sanet, mine = tree / "style_transfer/sanet", tree / "style_transfer/my_way"
    kept = {p.name for p in sanet.iterdir() if p.is_file()}
    assert {p.name for p in mine.iterdir()} == kept
    assert {"model.py", "train.py", "config.yaml", "transfer.sh", "train.sh", "eval.sh"} <= kept
    for name in kept - {"config.yaml"}:
        assert "sanet." not in (mine / name).read_text(), name
    compile((mine / "train.py").read_text(), "train.py", "exec")
    parsed = subprocess.run([sys.executable, "-c", TRANSFER], cwd=tree, capture_output=True, text=True)
    assert parsed.returncode == 2 and "did you mean lr" in parsed.stderr


@pytest.mark.parametrize(
    "names",
    [
        ["esd"],
        ["core"],
        ["sample"],
        ["base"],
        ["My-way"],
        ["../x"],
        [],
        ["a", "b"],
        ["--style-transfer"],
        ["--style-transfer", "sanet"],
    ],
)
def test_refuses(tree, names):
    before = sorted(tree.rglob("*"))
    done = make(tree, *names)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert sorted(tree.rglob("*")) == before
