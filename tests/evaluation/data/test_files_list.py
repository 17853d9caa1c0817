"""The list of files that others publish, and what `python -m evaluation.check --files` says of a folder."""

import ast
import hashlib
import re
from pathlib import Path

import pytest

from evaluation import check, fid
from evaluation.data import external
from evaluation.judges import judging

ROOT = Path(__file__).parents[3]
METHODS = sorted(ROOT.glob("style_transfer/*/model.py"))


def listed():
    return {row.file for row in external.read_list()}


def test_every_row_is_complete():
    rows = external.read_list()
    assert len(listed()) == len(rows)
    for row in rows:
        assert row.source and row.needed_by and not Path(row.file).is_absolute()
        assert re.fullmatch(r"[0-9a-f]{8,64}|", row.sha256) and (row.bytes is None or row.bytes > 1e6)


def test_default_paths_are_listed():
    wanted = [*judging.PUBLISHED, *fid.WEIGHTS["inception"], *fid.WEIGHTS["torchvision"]]
    assert {path.removeprefix("checkpoints/") for path in wanted} <= listed()


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.parent.name)
def test_what_a_style_transfer_method_reads_is_listed(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES":
            files, method = ast.literal_eval(node.value), path.parent.name
            inside = {Path(file).name for file in listed() if file.startswith(f"{method}/")}
            assert f"{method}/" in listed() or set(files) <= inside
            return
    pytest.skip("reads no files of others")


CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


def states(folder, **known):
    row = external.External("a.pth", "somewhere", None, "", "", "someone")._replace(**known)
    return external.state(row, folder)


def test_states_of_a_file(tmp_path):
    assert states(tmp_path)[0] == "missing"
    (tmp_path / "a.pth").write_bytes(CONTENT)
    assert states(tmp_path) == ("present", "its hash is not on record")
    assert states(tmp_path, sha256=SHA) == states(tmp_path, sha256=SHA[:8]) == ("present", "hash agrees")
    what, why = states(tmp_path, sha256="0" * 64)
    assert what == "wrong" and SHA[:16] in why
    assert states(tmp_path, bytes=len(CONTENT), sha256=SHA)[0] == "present"
    assert states(tmp_path, bytes=8) == ("wrong", "has 7 bytes, expected 8")


def test_states_of_a_folder(tmp_path):
    assert states(tmp_path, file="sd/")[0] == "missing"
    (tmp_path / "sd").mkdir()
    assert states(tmp_path, file="sd/") == ("wrong", "an empty folder")
    (tmp_path / "sd" / "model_index.json").touch()
    assert states(tmp_path, file="sd/") == ("present", "")


def test_command_line(tmp_path, capsys):
    (tmp_path / "style50.pth").write_bytes(CONTENT)
    check.main(["--files", str(tmp_path), "--hash"])
    out = capsys.readouterr().out
    assert re.search(r"^present +style50\.pth ", out, re.M) and f"{SHA}  style50.pth" in out
    assert re.search(r"^missing +style50_cls\.pth .*evaluation\.predict", out, re.M)
    assert f"1 present, {len(listed()) - 1} missing, 0 wrong" in out
    (tmp_path / "inception_v3_google-0cc3c7bd.pth").write_bytes(CONTENT)
    with pytest.raises(SystemExit) as exit:
        check.main(["--files", str(tmp_path)])
    assert exit.value.code == 2 and "1 files are not what they should be" in capsys.readouterr().err
