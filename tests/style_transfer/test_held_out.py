"""Styles that nothing was trained on: painted and judged as others, without what the classifiers name."""

import json
from pathlib import Path

from evaluation import protocol
from evaluation.mini.dataset import UNUSED_STYLES
from style_transfer import evaluate, table, trivial
from style_transfer import protocol as protocols

ROOT = Path(__file__).parents[2]
SEEN, HELD_OUT = (ROOT / "results" / name for name in ("style_transfer", "style_transfer_held_out"))
COLUMNS = ("vgg_style_truth", "vgg_content_photo")  # of the table in the README, for both kinds of styles


def test_no_other_protocol_of_the_miniature_names_them():
    assert sorted(protocols.load("transfer-mini-held-out").styles) == UNUSED_STYLES
    assert set(UNUSED_STYLES).isdisjoint(protocols.load("transfer-mini").styles)
    for path in protocol.FOLDER.glob("mini*.yaml"):
        assert set(UNUSED_STYLES).isdisjoint(protocol.load(path).themes), path


def test_judged_without_what_the_classifiers_see(tmp_path, capsys):
    out, few = tmp_path / "content", ["--objects", "Cats", "Sea"]
    asked = ["--data", "mini", "--protocol", "transfer-mini-held-out", "--out", str(out), *few]
    trivial.main(["content", *asked])
    evaluate.main([str(out), *few])
    about, said = json.loads((out / "losses-partial.json").read_text()), capsys.readouterr().out
    assert (about["outputs"], sorted(about["styles"])) == (24, UNUSED_STYLES)
    assert about["summary"]["vgg_style_truth"]["mean"] > 0 == about["summary"]["vgg_content_photo"]["mean"]
    assert about["accuracy"] == {} and "seen as asked" not in said
    assert not {"style_accuracy", "object_accuracy"} & table.row("content", about).keys()


def figures(folder):
    """Name of a method -> the row of the table that is shipped for it."""
    return {name: table.row(name, about) for name, about in table.read_judged([folder]).items()}


def test_the_same_networks_were_painted_with():
    seen, held_out = (
        {
            path.parent.name: json.loads(path.read_text())["made"]["weights"]
            for path in folder.glob("*/losses.json")
        }
        for folder in (SEEN, HELD_OUT)
    )
    assert seen == held_out and len(seen) == 11


def test_the_readme_says_what_is_shipped():
    text = (ROOT / "style_transfer/README.md").read_text().split("<!-- held out -->")[1]
    lines = [line.strip("| ").split(" | ") for line in text.strip().splitlines()[2:]]
    seen, held_out = figures(SEEN), figures(HELD_OUT)
    expected = [
        [name, *(f"{folder[name][column]:.2f}" for column in COLUMNS for folder in (seen, held_out))]
        for name in [*table.TRIVIAL, *sorted(seen.keys() - set(table.TRIVIAL))]
    ]
    assert lines == expected
