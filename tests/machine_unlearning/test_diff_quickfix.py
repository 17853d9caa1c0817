"""Diff-QuickFix: where rows go, what stays, what the captions say."""

import json

import pytest
import torch

from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError
from machine_unlearning.core.text_encoder import projected
from machine_unlearning.diff_quickfix import train
from machine_unlearning.diff_quickfix.captions import captions, kept_prompts
from machine_unlearning.hirm import train as hirm
from tests import tiny

EXACT = ["tokens=last", "captions=bare", "lamb=1e-9"]  # one row, that arrives


def words(model, target, out, *more):
    return ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu", *more]


def outputs(model, prompts, *runs):
    """What the layer puts out for the last token of words: [B,D]."""
    sd = load_sd(model)
    for run in runs:
        load_run(sd, run)
    rows = projected(sd.text_encoder, sd.tokens(prompts), train.LAYER)[1]
    ends = [train.last_token(sd.tokenizer, train.Caption(prompt, prompt)) for prompt in prompts]
    return rows[torch.arange(len(prompts)), ends]


def test_the_concept_comes_out_as_its_anchor(tiny_sd, tmp_path):
    train.main(words(tiny_sd, "Sketch,Rust", tmp_path / "run", "anchor=A Cats", *EXACT))
    wanted = outputs(tiny_sd, ["A Cats"])
    got = outputs(tiny_sd, ["Sketch", "Rust"], tmp_path / "run")
    torch.testing.assert_close(got, wanted.expand_as(got), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(outputs(tiny_sd, ["Sketch"]), wanted, atol=1e-4)


@pytest.mark.parametrize("earlier", [train, hirm])
def test_a_later_request_goes_where_the_base_model_has_its_anchor(earlier, tiny_sd, tmp_path):
    """Also where an earlier run has moved that anchor, or the layer's bias."""
    earlier.main(words(tiny_sd, "Rust", tmp_path / "first"))
    moved, wanted = outputs(tiny_sd, ["Rust"], tmp_path / "first"), outputs(tiny_sd, ["Rust"])
    assert not torch.allclose(moved, wanted, rtol=1e-2)
    start = ["--from", str(tmp_path / "first")]
    train.main(words(tiny_sd, "Sketch", tmp_path / "second", "anchor=Rust", *start, *EXACT))
    got = outputs(tiny_sd, ["Sketch"], tmp_path / "second")
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_nothing_moves_that_is_preserved_with_force(tiny_sd, tmp_path):
    kept = ["A Cats image in Rust style.", ""]
    shifts = []
    for preserve in ("0", "1e6"):
        run = tmp_path / preserve
        train.main(words(tiny_sd, "Sketch", run, f"preserve={preserve}", "lamb=0.01"))
        plain, edited = (load_sd(tiny_sd) for _ in range(2))
        load_run(edited, run)
        shifts.append((edited.embed(kept) - plain.embed(kept)).norm().item())
    assert shifts[1] < 0.01 * shifts[0]


def test_what_is_preserved_shows_nothing_that_the_chain_forgot(tiny_sd, tmp_path):
    first = tiny.finished(tmp_path / "first", target="Cats")
    args, _ = train.parse(words(tiny_sd, "Sketch", "o", "--from", str(first)))
    kept = kept_prompts(args)
    assert kept[0] == "" and len(kept) == 1 + 10 * 9
    assert not [prompt for prompt in kept if "Cats" in prompt or "Sketch" in prompt]


@pytest.mark.parametrize("target, name, instead", [("Sketch", "Sketch", "Photo"), ("Cats", "Cats", "Fishes")])
def test_sentences_run_in_step_from_the_name_on(target, name, instead, tiny_sd):
    _, pairs = train.parse(words(tiny_sd, target, "o", "wording=cells"))
    sd = load_sd(tiny_sd)
    assert len(pairs) == (10 if target == "Sketch" else 11)
    for pair in pairs:
        assert [caption.name for caption in pair] == [name, instead]
        i, j = (train.last_token(sd.tokenizer, caption) for caption in pair)
        edit, guide = (sd.tokens([caption.text])[0] for caption in pair)
        together = min(len(edit) - i, len(guide) - j)
        assert torch.equal(edit[i + 1 : i + together], guide[j + 1 : j + together]) and edit[i] != guide[j]


def test_the_name_in_its_last_place_is_edited(tiny_sd):
    sd = load_sd(tiny_sd)
    anchor = captions("Photo", "augmented")[1]
    assert anchor == ("A photo of Photo", "Photo")
    last = train.last_token(sd.tokenizer, anchor)
    assert last == len(sd.tokenizer(anchor.text)["input_ids"]) - 2
    with pytest.raises(UserError, match="is cut off; use fewer words"):
        train.last_token(sd.tokenizer, train.Caption("Sea " * 99 + "Rust", "Rust"))


@pytest.mark.parametrize(
    "target, more, anchor",
    [
        ("Sketch", ["--variant", "canvas"], "painting"),
        ("Cats", ["--variant", "canvas"], "animal"),
        ("Towers", ["--variant", "published"], "object"),
        ("Sketch+Cats", ["--variant", "canvas"], "Cats"),
        ("Sketch", [], "Photo"),
        ("Cats", [], "Fishes"),
        ("Cats,Fishes", [], "Flame"),
        ("Sketch", ["anchor='{theme} style'"], "Photo style"),
    ],
)
def test_anchors(target, more, anchor, tiny_sd):
    _, pairs = train.parse(words(tiny_sd, target, "o", *more))
    assert {caption.name for _, caption in pairs} == {anchor} and len(pairs) == 4 * (1 + target.count(","))
    assert pairs[1][1].text == f"A photo of {anchor}"


def test_an_anchor_is_nothing_that_the_chain_forgot(tiny_sd, tmp_path):
    first = tiny.finished(tmp_path / "first", target="Cats")
    _, pairs = train.parse(words(tiny_sd, "Sketch+Cats", "o", "--from", str(first)))
    assert {(concept.name, anchor.name) for concept, anchor in pairs} == {("Cats in Sketch style", "Fishes")}


@pytest.mark.parametrize(
    "target, anchor, message",
    [
        ("Sketch", "sketch", "anchor=sketch: sends 'Sketch' to itself"),
        ("Sketch", "'{object}'", "anchor={object}: Sketch is a style"),
        ("Sketch", "some {supercategory}", "anchor=some {supercategory}: Sketch is a style"),
        ("Cats", "", "anchor=: says nothing"),
    ],
)
def test_senseless_anchors(target, anchor, message, tiny_sd):
    with pytest.raises(UserError, match=message):
        train.parse(words(tiny_sd, target, "o", f"anchor={anchor}"))


def test_the_log_says_how_much_changed(tiny_sd, tmp_path):
    changes = []
    for lamb in ("0.1", "10.0"):
        train.main(words(tiny_sd, "Cats", tmp_path / lamb, f"lamb={lamb}"))
        line = json.loads((tmp_path / lamb / "log.jsonl").read_text())
        assert line["rows"] > 100 and line["squares"] > 0
        before, after = tiny.weights_of(tiny_sd), tiny.weights_of(tiny_sd, tmp_path / lamb)
        (name,) = tiny.changed(before, after)
        change = ((after[name] - before[name]).norm() / before[name].norm()).item()
        assert line["change"] == pytest.approx(change, rel=1e-3)
        changes.append(change)
    assert changes[0] > changes[1] > 0
