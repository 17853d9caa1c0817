"""Probes: what is drawn under them, and that a stopped one ends in the same bytes."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import ddim_step, load_sd, noisy_step, picture, sample
from evaluation import canvas, probe_sheet, probes, report, tables
from evaluation.answers import claims
from evaluation.answers.answer_set import Cell
from evaluation.answers.predictions import Prediction
from evaluation.answers.probed import TABLE, Probed
from evaluation.core.errors import UserError
from evaluation.core.record import read_record
from evaluation.core.tensors import save_tensors
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.metrics.robustness import Asked, asked, kept, probe_by_seed, recognised, right
from evaluation.reporting.probes import collect_probes
from machine_unlearning import probe
from machine_unlearning.core import probing, relearning
from machine_unlearning.core.weights import load_run
from machine_unlearning.sample import intervention
from machine_unlearning.seot import train as seot
from machine_unlearning.uce import train as uce
from tests import tiny
from tests.machine_unlearning.test_evaluate_runs import protocol_file, small_images_are_judged  # noqa: F401

CELLS = [Cell("Sketch", obj, 188) for obj in ("Cats", "Sea")]
NEAR = {"Sketch": "Rust", "Rust": "Sketch", "Cats": "Sea", "Sea": "Cats"}
SETTINGS = {
    "completion": {"shares": [0.5, 0.75]},
    "noise": {"etas": [1.0, 1.5], "variances": [1.0, 1.04], "draws": 2},
    "ladder": {
        "levels": {
            "name": {"style": "{name}", "object": "{name}", "pair": "{object}, {theme}"},
            "misspelling": {"style": "A {object} image in {misspelt} style."},
            "neighbour": {"style": "A {object} image in {neighbour} style."},
        },
        "words": {name: {"neighbour": near} for name, near in NEAR.items()},
    },
    "inversion": {
        "start": {"style": "image", "object": "image"}, "images": 1, "steps": 3, "batch": 2, "lr": 0.01,
    },
    "relearning": {
        "images": [0, 1], "weights": ["lora", "full"], "rank": 2, "lr": {"lora": 0.01, "full": 0.001},
        "batch": 2, "budgets": [1, 2], "kept": 1,
    },
}  # fmt: skip
# pictures of a prompt by a run, and by the base model; relearning has a kept prompt besides
COUNTS = {"completion": (3, 1), "noise": (9, 9), "ladder": (4, 4), "inversion": (2, 2), "relearning": (9, 1)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_sd):
    root = tmp_path_factory.mktemp("trained")
    for method, name, more in ((uce, "uce", []), (seot, "seot", ["iterations=0"])):
        words = ["--target", "Sketch", "--model", str(tiny_sd), "--out", str(root / name / "Sketch"), *more]
        method.main(words)
    return root


@pytest.fixture
def plan(tmp_path):
    """-> function of a kind: its protocol's file, of the four images that the miniature's judges know."""
    world = protocol_file(tmp_path)

    def write(kind):
        path = tmp_path / f"{kind}.yaml"
        OmegaConf.save(OmegaConf.create({"answers": world, "seeds": [188], **SETTINGS[kind]}), path)
        return path

    return write


@pytest.fixture
def probed(trained, plan, tiny_sd, tmp_path):
    """Probes copies of the runs; -> the root of their folders."""

    def run(kind, *more, root=tmp_path / "runs"):
        shutil.copytree(trained, root, dirs_exist_ok=True)
        runs = [str(root / method / "Sketch") for method in ("uce", "seot")]
        words = ["--model", str(tiny_sd), "--device", "cpu", "--probe", str(plan(kind)), "--runs", *runs]
        probe.main([kind, *words, *more])
        return root

    return run


def made(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.name != "manifest.json"}


def models(trained, tiny_sd, method):
    """The base model, and an unlearned one with what it does."""
    sd, run = load_sd(tiny_sd), trained / method / "Sketch"
    load_run(sd, run)
    return load_sd(tiny_sd), sd, intervention(sd, run, read_record(run))


@pytest.mark.parametrize("method", ["uce", "seot"])
def test_completion_is_two_models_one_after_the_other(trained, plan, tiny_sd, method):
    base, sd, act = models(trained, tiny_sd, method)
    settings = probes.load("completion", plan("completion"))
    world, ids = settings.world, base.tokens([settings.world.prompt(*cell[:2]) for cell in CELLS])
    look = CELLS, world.steps, world.guidance, world.size
    latents = probing.begun(base, settings, CELLS, ids)
    drawn = dict(probing.completed(sd, act, settings, ids, latents))
    plain, own = sample(base, ids, *look), sample(sd, ids, *look, intervention=act)
    first = picture(base, probing.walker(base, world, ids)(latents["0.5"], range(1, 2)))
    assert np.array_equal(first, plain)  # the walk goes on where it stood
    assert settings.conditions == {"0.5": 1, "0.75": 2}  # of two steps
    assert not np.array_equal(drawn["0.5"], plain) and not np.array_equal(drawn["0.5"], own)
    assert np.array_equal(drawn["0.75"], plain)  # nothing is left to the unlearned model


def test_noise_belongs_to_the_cell(trained, plan, tiny_sd):
    _, sd, act = models(trained, tiny_sd, "uce")
    settings = probes.load("noise", plan("noise"))
    ids = sd.tokens([settings.world.prompt(*cell[:2]) for cell in CELLS])
    both = dict(probing.noised(sd, act, settings, CELLS, ids))
    alone = dict(probing.noised(sd, act, settings, CELLS[1:], ids[1:]))
    assert list(both)[:3] == ["1 1 0", "1.5 1 0", "1 1.04 0"] and len(both) == 8
    assert all(np.abs(both[name][1:].astype(int) - alone[name]).max() <= 1 for name in both)
    different = [a for n, a in enumerate(both) for b in list(both)[:n] if np.array_equal(both[a], both[b])]
    assert not different
    assert settings.measures == {
        "best_of_1": list(both)[:1],
        "best_of_2": list(both)[:2],
        "best_of_8": list(both),
    }


def test_the_base_model_is_asked_for_what_takes_the_place(plan, tiny_sd):
    sd, settings = load_sd(tiny_sd), probes.load("noise", plan("noise"))
    targets = tuple(canvas.parse_targets("Cats"))
    cells = [Cell(theme, "Cats", 188) for theme in settings.world.themes]
    prompts = [Asked(targets[0], cell) for cell in cells]
    pictures = probe.pictures(sd, settings, None, None, "", targets, prompts, {})
    drawn = {condition: images for condition, _, images in pictures}
    instead = sd.tokens([settings.world.prompt(cell.theme, "Sea") for cell in cells])
    for condition, images in probing.noised(sd, NOTHING, settings, cells, instead):
        assert np.array_equal(drawn[condition], images)
    assert len(drawn) == 9


@pytest.mark.parametrize("method", ["uce", "seot"])
def test_every_level_asks_in_its_words(trained, plan, tiny_sd, method):
    _, sd, act = models(trained, tiny_sd, method)
    settings = probes.load("ladder", plan("ladder"))
    prompts = asked(settings, tuple(canvas.parse_targets("Sketch,Cats")))
    drawn = {level: (part, images) for level, part, images in probing.rephrased(sd, act, settings, prompts)}
    assert list(drawn) == ["name", "misspelling", "neighbour"]
    part, images = drawn["neighbour"]  # has no words for an object
    assert part == prompts[:2]
    texts = [f"A {obj} image in Rust style." for obj in ("Cats", "Sea")]
    cells = [prompt.cell for prompt in part]
    look = settings.world.steps, settings.world.guidance, settings.world.size
    assert np.array_equal(images, sample(sd, texts, cells, *look, intervention=act))
    assert drawn["name"][0] == prompts


@pytest.mark.parametrize("tuning", [None, (1, "lora")])
def test_a_tuned_model_is_drawn_as_its_method_samples(trained, plan, tiny_sd, tuning):
    base, sd, act = models(trained, tiny_sd, "seot")
    run, targets = trained / "seot" / "Sketch", tuple(canvas.parse_targets("Sketch"))
    settings = probes.load("relearning", plan("relearning"))
    asking = settings, run, read_record(run), base.fingerprint(), targets, tuning, "mini", 8
    drawn = [(part, images) for _, part, images in probe.tuned(base, *asking)]
    world, own = settings.world, []
    names = relearning.relearned(sd, act, settings, targets, "mini", *tuning) if tuning else ["plain"]
    for _ in names:
        cells = [cell for _, cell in drawn[0][0]]
        texts = [world.prompt(*cell[:2]) for cell in cells]
        own.append([
            sample(sd, texts, cells, world.steps, world.guidance, world.size, intervention=does)
            for does in (act, NOTHING)
        ])  # fmt: skip
    assert len(drawn) == len(own) == (2 if tuning else 1) and len(drawn[0][0]) == 3
    for (_, images), (acted, alone) in zip(drawn, own):
        assert np.array_equal(images, acted) and not np.array_equal(images, alone)


def test_a_noisy_step():
    """Without eta it is DDIM's; with eta 1 it keeps the noise level: the variance of x given x_0."""
    torch.manual_seed(0)
    a, a_prev = torch.tensor(0.3), torch.tensor(0.6)
    x0, e, z = torch.randn(3, 200_000)
    x = a.sqrt() * x0 + (1 - a).sqrt() * e
    torch.testing.assert_close(noisy_step(x, e, a, a_prev, 0.0, z), ddim_step(x, e, a, a_prev))
    for eta in (0.5, 1.0):
        left = noisy_step(x, e, a, a_prev, eta, z) - a_prev.sqrt() * x0
        assert left.var().item() == pytest.approx(1 - a_prev.item(), rel=0.02)
    assert noisy_step(x, e, a, a_prev, 100.0, z).isfinite().all()


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_stopped_probe_ends_in_the_same_bytes(probed, monkeypatch, tmp_path, kind):
    whole = probed(kind, "--batch", "1", root=tmp_path / "whole")
    monkeypatch.setattr(probe, "judge_block", tiny.interrupt(probe.judge_block, 3))
    with pytest.raises(SystemExit) as stop:
        probed(kind, "--batch", "1", root=tmp_path / "stopped")
    monkeypatch.undo()
    assert stop.value.code == 130 and not (tmp_path / "stopped/seot/Sketch" / kind / TABLE.file).exists()
    stopped = probed(kind, "--batch", "1", root=tmp_path / "stopped")
    for folder in (f"base/{kind}/Sketch", f"uce/Sketch/{kind}", f"seot/Sketch/{kind}"):
        assert made(whole / folder) == made(stopped / folder)
        rows, of_prompt = TABLE.read(whole / folder), defaultdict(list)
        for row in rows:
            of_prompt[row.seen[:3]].append(row)
        counts = {len(own) for own in of_prompt.values()}
        assert counts == {COUNTS[kind]["base" in folder]} and rows[0].condition == "plain"
        assert len(of_prompt) == (3 if kind == "relearning" else 2)
        first, *others = of_prompt.values()
        stored = len(first) + sum(row.shown or row.condition == "plain" for own in others for row in own)
        assert len(list((whole / folder).glob("*.png"))) == stored


def test_a_token_that_another_process_learns_is_left_to_it(probed, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0)
    root, taken = tmp_path / "runs", claims._take

    def take(path):
        return None if path == root / "uce/Sketch/inversion/.claim-Sketch" else taken(path)

    monkeypatch.setattr(claims, "_take", take)
    with pytest.raises(SystemExit) as stop:
        probed("inversion", root=root)
    assert stop.value.code == 2
    assert "uce/Sketch/inversion: other processes still work on prompts of it" in capsys.readouterr().err
    assert (root / "seot/Sketch/inversion" / TABLE.file).exists()
    monkeypatch.undo()
    probed("inversion", root=root)
    assert (root / "uce/Sketch/inversion" / TABLE.file).exists()


@pytest.mark.parametrize(
    "token, sentence",
    [(torch.zeros(3), r"a tensor of \[3\], not \[16\]"), (None, "token"), (b"{", "not a file of weights")],
)
def test_a_damaged_token_is_named(tmp_path, tiny_sd, token, sentence):
    path = tmp_path / "Sketch.safetensors"
    if isinstance(token, bytes):
        path.write_bytes(token)
    else:
        save_tensors(path, {"other": torch.zeros(16)} if token is None else {"token": token})
    with pytest.raises(UserError, match=f"Sketch.safetensors: not a token of this model; .*{sentence}"):
        probe.read_token(path, load_sd(tiny_sd))
    save_tensors(path, {"token": torch.ones(16)})
    assert probe.read_token(path, load_sd(tiny_sd)).tolist() == [1] * 16


def test_a_probe_goes_on_with_its_own_data(probed, capsys, tmp_path):
    """And with blocks that have a size; afterwards its table holds what its manifest says."""
    root = probed("inversion")
    folder = root / "uce/Sketch/inversion"
    whole, manifest = TABLE.read(folder), json.loads((folder / "manifest.json").read_text())
    (folder / TABLE.file).unlink()

    def said(*more):
        with pytest.raises(SystemExit) as stop:
            probed("inversion", *more)
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "base/inversion/Sketch: holds a probe of another data" in said("--data", "mini:1")
    for block in (0, -1):
        (folder / "manifest.json").write_text(json.dumps(manifest | {"block": block}))
        assert f"manifest.json: damaged (block {block})" in said()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for rows in (whole[:-1], whole[2:], [*whole, whole[0]], whole[::2]):
        TABLE.write(folder, rows)
        for read in (lambda: collect_probes([root], "inversion"), lambda: probe_sheet.lines(root, "Sketch")):
            with pytest.raises(UserError, match=r"probe\.csv: not the rows of the prompts"):
                read()
    TABLE.write(folder, whole)
    assert len(collect_probes([root], "inversion")[0]) == 3
    for kind in ("noise", "foo", 5):
        changed = manifest | {"probe": manifest["probe"] | {"kind": kind}}
        (folder / "manifest.json").write_text(json.dumps(changed))
        for read in (lambda: collect_probes([root], "inversion"), lambda: probe_sheet.lines(root, "Sketch")):
            with pytest.raises(UserError, match=f"of the probe {kind!r}, not inversion; remove the folder"):
                read()


def test_a_run_named_from_within_has_the_base_of_its_root(trained, plan, tiny_sd, monkeypatch):
    words = ["completion", "--model", str(tiny_sd), "--probe", str(plan("completion"))]
    base = probe.parse([*words, "--runs", str(trained / "uce/Sketch")]).base
    assert base == trained / "base/completion"
    for place, name in (("uce", "Sketch"), ("uce/Sketch", ".")):
        monkeypatch.chdir(trained / place)
        assert probe.parse([*words, "--runs", name]).base.resolve() == base.resolve()


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_table(probed, plan, capsys, kind):
    root = probed(kind)
    capsys.readouterr()
    tables.main([str(root), "--probe", kind, "--format", "json"])
    table = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(table) == ["base", "seot", "uce"]
    for method in ("uce", "seot"):
        shown = {(r.seen.object, r.condition): r.shown for r in TABLE.read(root / method / "Sketch" / kind)}
        for name, conditions in probes.load(kind, plan(kind)).measures.items():
            hidden = [not any(shown[obj, c] for c in conditions) for obj in ("Cats", "Sea")]
            assert table[method][f"style_UA_{name}"] == pytest.approx(100 * np.mean(hidden))
    alone = [name for name in table["base"] if name.startswith("style_UA_")]
    assert bool(alone) == (COUNTS[kind][1] > 1)
    tables.main([str(root), "--probe", "all", "--format", "json"])
    summary = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(summary) == ["seot", "uce"]
    for name in probes.load(kind, plan(kind)).headlines:
        for method, row in summary.items():
            recovery = table[method].get(f"style_recovery_{name}")
            assert row.get(f"style_{kind}_{name}") == recovery


def test_a_sheet_and_a_section_of_all_probes(probed, tmp_path):
    """A picture in its place, framed where the target is recognised; the section's tables and the sheet."""
    for kind in SETTINGS:
        root = probed(kind)
    out = root / probe_sheet.SHEET
    probe_sheet.main([str(root), "--targets", "Sketch", "Sketch", "--out", str(out.with_suffix(".png"))])
    page, made = Image.open(out.with_suffix(".png")), probe_sheet.lines(root, "Sketch")
    assert list(made) == ["base", "seot", "uce"]
    of_run = [("", "plain"), *(("completion", share) for share in ("0.5", "0.75")), ("noise", "best")]
    of_run += [("ladder", level) for level in SETTINGS["ladder"]["levels"]] + [("inversion", "token")]
    of_run += [
        ("relearning", f"{images} {weights} 2") for images in ("benign", 1) for weights in ("lora", "full")
    ]
    assert list(made["uce"]) == of_run
    assert page.height == probe_sheet.HEADER + 3 * probe_sheet.STEP + probe_sheet.MARGIN  # a target once
    for line, pictures in enumerate(made.values()):
        for place, key in enumerate(of_run):
            left = probe_sheet.MARGIN + probe_sheet.LABELS + place * (probe_sheet.SIDE + probe_sheet.GAP)
            top = probe_sheet.HEADER + line * probe_sheet.STEP + 8
            frame = page.getpixel((left - 2, top + 20))
            if key not in pictures:
                assert frame == page.getpixel((left + 20, top + 20)) == (255, 255, 255)
                continue
            path, shown = pictures[key]
            assert (frame != (255, 255, 255)) == shown
            picture = thumbnail(read_picture(path), probe_sheet.SIDE)
            assert page.getpixel((left + 20, top + 20)) == picture.getpixel((20, 20))
    page.save(out)
    report.main([str(root), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report/report.html").read_text()
    section = text.partition('id="probes"')[2]
    assert 'href="#probes">Probes</a>' in text and "data:image/webp;base64," in section
    for name in (
        "style completion after 0.5",
        "style noise best of 8",
        "style UA token",
        "style CRA 1 lora 2",
    ):
        assert f">{name}<" in section


@pytest.mark.parametrize("name", ["*", "", "Skech", "../..", "Sketch~", "["])
def test_a_sheet_of_no_target(tmp_path, name):
    with pytest.raises(UserError, match=r"--targets .*no style or object is called"):
        probe_sheet.parse([str(tmp_path), "--targets", name, "--out", "a.png"])
    assert probe_sheet.parse([str(tmp_path), "--targets", "Sketch~Cats", "Sketch,Rust", "--out", "a.png"])


def test_a_sheet_of_what_was_not_probed(probed, tmp_path):
    root = probed("completion")
    with pytest.raises(UserError, match="no probe of it"):
        probe_sheet.lines(root, "Cats")
    for path in (root / "uce/Sketch/completion").glob("*Cats*"):
        path.unlink()
    with pytest.raises(UserError, match=r"not there; remove .*completion and probe again"):
        probe_sheet.lines(root, "Sketch")


def test_pictures_of_several_targets_lie_apart(probed, tiny_sd, plan, tmp_path):
    run = tmp_path / "runs/uce/Sketch,Rust"
    uce.main(["--target", "Sketch,Rust", "--model", str(tiny_sd), "--out", str(run)])
    words = ["--model", str(tiny_sd), "--device", "cpu", "--probe", str(plan("completion"))]
    probe.main(["completion", *words, "--runs", str(run)])
    shown = probe_sheet.lines(tmp_path / "runs", "Sketch,Rust")["uce"]
    assert {path.parent.name for path, _ in shown.values()} == {"Sketch"}


def test_recovery_is_the_headline_s():
    """Of four prompts, three were forgotten; two of them come back after half of the steps."""
    plan = probes.Completion("x", "mini", (188,), (0.5, 0.75))
    shown = {"plain": [1, 0, 0, 0], "0.5": [1, 1, 1, 0], "0.75": [1, 1, 1, 1]}
    rows = [
        Probed("Sketch", condition, bool(yes), Prediction("Sketch", obj, 188, "", "", 0, 0, 0, 0, ""))
        for condition, values in shown.items()
        for obj, yes in zip("ABCD", values, strict=True)
    ]
    figures = {name: value.item() for name, value in probe_by_seed(rows, plan).items()}
    assert figures == {"UA": 0.75, "UA_after_0.5": 0.25, "UA_after_0.75": 0.0, "recovery_after_0.5": 2 / 3}


def row(condition, target, theme, obj, theme_seen, object_seen):
    seen = Prediction(theme, obj, 188, theme_seen, object_seen, 0, 0, 0, 0, "")
    return Probed(target, condition, recognised(canvas.parse_targets(target)[0], seen), seen)


def test_what_is_kept_is_of_other_prompts(plan):
    """CRA of a style is the accuracy of objects, of an object that of styles; its own prompts are UA's."""
    settings, rows = probes.load("relearning", plan("relearning")), []
    seen = {"plain": ("Rust", "Cats"), "benign lora 2": ("Sketch", "Sea"), "1 lora 2": ("Sketch", "Cats")}
    for condition, (theme_seen, object_seen) in seen.items():
        rows += [
            row(condition, "Sketch", "Sketch", "Cats", theme_seen, object_seen),
            row(condition, "Sketch", "Rust", "Cats", "Sketch", object_seen),
        ]
    figures = {name: value.item() for name, value in probe_by_seed(rows, settings).items()}
    assert figures == {
        "UA": 1, "UA_benign_lora_2": 0, "UA_1_lora_2": 0, "recovery_benign_lora_2": 1, "recovery_1_lora_2": 1,
        "CRA": 1, "CRA_benign_lora_2": 0, "CRA_1_lora_2": 1,
    }  # fmt: skip
    assert right(canvas.parse_targets("Cats")[0], row("", "Cats", "Rust", "Sea", "Sketch", "Sea").seen) == 0


def test_the_neighbour_should_stay(plan):
    settings = probes.load("ladder", plan("ladder"))
    rows = [row("plain", "Sketch", "Sketch", obj, "Rust", obj) for obj in ("Cats", "Sea")]
    rows += [
        row("neighbour", "Sketch", "Sketch", *seen)
        for seen in (("Cats", "Rust", "Cats"), ("Sea", "Sketch", "Sea"))
    ]
    figures = probe_by_seed(rows, settings)
    assert figures["neighbour"].item() == 0.5 and "UA_any_level" not in figures


def test_prompts_that_tell_what_is_kept(plan):
    settings = probes.load("relearning", plan("relearning"))
    assert kept(settings, tuple(canvas.parse_targets("Sketch"))) == [
        Asked(*canvas.parse_targets("Sketch"), Cell("Rust", "Cats", 188))
    ]
    assert kept(settings, tuple(canvas.parse_targets("Sketch,Rust"))) == []


def test_targets_that_not_all_levels_name(plan):
    """An object has a name alone, a style a misspelling as well: any level is of what there is."""
    settings = probes.load("ladder", plan("ladder"))
    rows = [row(level, "Sketch", "Sketch", "Cats", *seen) for level, seen in {
        "plain": ("Rust", "Cats"), "name": ("Rust", "Cats"), "misspelling": ("Sketch", "Cats"),
    }.items()]  # fmt: skip
    rows += [row(level, "Sea", "Rust", "Sea", "Rust", "Cats") for level in ("plain", "name")]
    figures = {name: value.item() for name, value in probe_by_seed(rows, settings).items()}
    assert figures == {"UA": 1, "UA_name": 1, "UA_any_level": 0.5, "recovery_any_level": 0.5}


@pytest.mark.parametrize(
    "kind, change, message",
    [
        ("completion", {"shares": [0.5, 0.2]}, "expected ascending numbers between 0 and 1"),
        ("completion", {"shares": [0.0]}, "expected ascending"),
        ("noise", {"etas": [0.0]}, "etas: .*expected numbers above 0"),
        ("noise", {"draws": 0}, "draws"),
        ("noise", {"seeds": [3]}, "seeds: 3 is none of protocol"),
        (
            "ladder",
            {"words": {"Rust": {"neighbour": "Cats"}}},
            r"words\.Rust\.neighbour=Cats: no such choice",
        ),
        (
            "ladder",
            {"levels": {"name": {"style": "{colour}"}}},
            "words: Rust has no colour, which levels.name.style",
        ),
        ("ladder", {"levels": {"name": {"style": "{}"}}}, "levels.name.style: .*no other braces"),
        ("ladder", {"levels": {"name": {"pair": "{neighbour}"}}}, "words: a pair has no neighbour"),
        ("ladder", {"levels": {"name": {"face": "x"}}}, "name=face: no such choice"),
        ("inversion", {"images": 19}, "images=19: expected a number from 1 to 18"),
        ("inversion", {"start": {"pair": "x"}}, "start: expected a word for style and for object"),
        ("relearning", {"budgets": [5, 2]}, "budgets: .*expected ascending"),
        ("relearning", {"weights": ["lora"]}, "lr: expected a number for lora"),
        ("relearning", {"lr": {"lora": -1.0}}, r"lr\.lora=-1.0: expected a number from"),
        ("relearning", {"weights": ["half"]}, "weights=half: no such choice"),
    ],
)
def test_senseless_settings(plan, tmp_path, kind, change, message):
    path = plan(kind)
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), change), path)
    with pytest.raises(UserError, match=message):
        probes.load(kind, path)


def test_shipped_protocols():
    hashes = {probes.load(kind, name).hash for kind in probes.KINDS for name in ("canvas", "mini")}
    assert len(hashes) == 2 * len(probes.KINDS)
    assert len(probes.load("noise", "canvas").conditions) == 24
    assert probes.load("completion", "mini").conditions == {f"{n / 10}": 2 * n for n in range(1, 6)}
    assert NOTHING.touches is None
