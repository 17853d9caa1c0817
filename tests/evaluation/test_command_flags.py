"""What a flag may be is checked."""

import pytest


@pytest.mark.parametrize(
    "module, words, named",
    [
        ("prepare", "d o --size 0", "--size"),
        ("prepare", "d o --size 32.5", "--size"),
        ("prepare", "d o --workers -1", "--workers"),
        ("predict", "nowhere --batch 0", "--batch"),
        ("predict", "nowhere", "nowhere"),
        ("predict", "nowhere --device tpu", "--device"),
        ("fid", "nowhere --data mini", "nowhere"),
        ("mini_canvas", "o --per-object 0", "--per-object"),
        ("mini_canvas", "o --seed -1", "--seed"),
        ("mini_canvas", "o --sheet s.foo", "--sheet"),
        ("contact_sheet", "--base b --answers a --out s.foo", "--out"),
        ("contact_sheet", "--base b --answers a --out s.png --objects 0", "--objects"),
        ("check", "mini:abc", "mini:abc"),
        ("tables", "runs --explain esd/Sketch", "--explain"),
        ("foreign", "r/m/t --seconds nan", "--seconds"),
        ("train_classifier", "--task style --out j.safetensors --data mini:x", "--data"),
        ("train_classifier", "--task style --out j.safetensors --data nowhere", "--data"),
        ("train_classifier", "--task style --out j.pth", "--out"),
        ("train_classifier", "--task style --out j.safetensors init=nowhere", "init"),
    ],
)
def test_what_a_flag_may_be(module, words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = getattr(__import__(f"evaluation.{module}"), module)
    with pytest.raises(SystemExit) as stop:
        command.main(words.split())
    assert stop.value.code == 2 and named in capsys.readouterr().err.splitlines()[-1]
    assert not [*tmp_path.iterdir()]
