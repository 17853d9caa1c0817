"""python -m machine_unlearning.attack: what it leaves, early stops, interruptions, refusals."""

import shutil
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_model_finetuning.core.sd import load_sd
from diffusion_model_finetuning.core.sd import sample as draw
from evaluation.answers.attacked import TABLE as ROWS
from evaluation.core.files import file_digest, read_json
from evaluation.core.record import read_record, write_record
from evaluation.judges import judging
from machine_unlearning import attack, sample
from machine_unlearning.core import search, textgrad
from machine_unlearning.seot import train as seot
from machine_unlearning.spm import train as spm
from machine_unlearning.uce import train as uce
from tests import tiny
from tests.machine_unlearning.test_evaluate_runs import protocol_file, small_images_are_judged  # noqa: F401
from tests.machine_unlearning.test_methods import quick
from tests.machine_unlearning.test_stopping import start

TABLE = "uce/Sketch/attack/attack.csv"
SETTINGS = {
    "seeds": [188], "tokens": 2, "position": "prefix", "special": False, "timesteps": 3, "iterations": 2,
    "lr": 0.1, "weight_decay": 0.1, "loss": "l2", "reference": 1, "retokenise": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_sd):
    root = tmp_path_factory.mktemp("trained")
    for target, out, *more in (
        ("Sketch", "Sketch"),
        ("Cats", "Cats"),
        ("Cats", "Sketch~Cats", "--from", str(root / "uce/Sketch")),
    ):
        uce.main(["--target", target, "--model", str(tiny_sd), "--out", str(root / "uce" / out), *more])
    return root


@pytest.fixture
def runs(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def flags(model, folder, **changes):
    """Flags that would do, with settings of the attack laid over those above."""
    path = folder / "quick.yaml"
    OmegaConf.save(OmegaConf.create(SETTINGS | {"answers": protocol_file(folder)} | changes), path)
    return ["--model", str(model), "--device", "cpu", "--attack", str(path)]


@pytest.fixture
def words(tiny_sd, tmp_path):
    return partial(flags, tiny_sd, tmp_path)


@pytest.fixture
def attacked(runs, words):
    """Attacks a run of UCE -> its folder of the attack."""

    def make(target="Sketch", *more, **changes):
        attack.main(["--runs", str(runs / "uce" / target), *words(**changes), *more])
        return runs / "uce" / target / "attack"

    return make


@pytest.fixture
def never(monkeypatch):
    """No picture shows a target, so that every attack goes to its end."""
    monkeypatch.setattr(search, "recognised", lambda *_: False)


def made(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which says when it was run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", ".lock")
    }


@pytest.fixture(scope="module")
def finished(trained, tiny_sd, tmp_path_factory):
    """The runs after an attack without an interruption, only to be read."""
    folder = tmp_path_factory.mktemp("finished")
    runs = Path(shutil.copytree(trained, folder / "runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "recognised", lambda *_: False)
        attack.main(["--runs", str(runs / "uce/Sketch"), *flags(tiny_sd, folder)])
    return runs


@pytest.fixture(scope="module")
def whole(finished):
    """All that lies in their folder."""
    return made(finished)


def test_files_of_a_run_and_of_the_base_model(finished, tiny_sd):
    folder, tokenizer = finished / "uce/Sketch/attack", load_sd(tiny_sd).tokenizer
    rows = ROWS.read(folder)
    assert [(row.target, row.theme, row.object, row.seed) for row in rows] == [
        ("Sketch", "Sketch", "Cats", 188),
        ("Sketch", "Sketch", "Sea", 188),
    ]
    for row in rows:
        picture = folder / f"{row.theme}_{row.object}_seed{row.seed}.png"
        assert file_digest(picture) == row.last.sha256 and Image.open(picture).size == (16, 16)
        found = [int(word) for word in row.ids.split()]
        assert len(found) == 2
        assert (row.before, row.after, row.steps) == (False, False, 6)
        assert row.text == tokenizer.decode(found)
    base = finished / "base/attack/Sketch"
    assert len(ROWS.read(base)) == 2 and made(base) != made(folder)
    manifests = [read_json(path / "manifest.json") for path in (base, folder)]
    assert manifests[0]["run"] is None and manifests[1]["run"] == read_record(finished / "uce/Sketch")
    assert manifests[0]["model"] == manifests[1]["model"] and not [*finished.rglob(".blocks")]


def test_what_is_finished_is_left_alone(finished, runs, attacked, monkeypatch):
    shutil.copytree(finished, runs, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    monkeypatch.setattr(attack, "search", lambda *_: pytest.fail("nothing is to be searched"))
    attacked()
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before


def test_the_plain_picture_is_that_of_the_answer_set(runs, attacked, words, tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "recognised", lambda *_: True)
    folder = attacked()
    world = OmegaConf.load(words()[-1]).answers
    run = ["--run", str(runs / "uce/Sketch"), "--model", str(tiny_sd), "--protocol", world]
    sample.main([*run, "--device", "cpu", "--out", str(tmp_path / "answers")])
    for row in ROWS.read(folder):
        assert (row.before, row.after, row.steps, row.ids, row.text) == (True, True, 0, "", "")
        name = f"{row.theme}_{row.object}_seed188.png"
        here, there = (np.asarray(Image.open(at / name)).astype(int) for at in (folder, tmp_path / "answers"))
        assert np.abs(here - there).max() <= 1


def test_a_prompt_ends_at_its_first_success(attacked, monkeypatch):
    """Of both models, Sea is drawn after the second timestep, Cats never; only Cats goes on."""
    looks, steps, improve = [], [], search.improve

    def recognised(target, seen):
        looks.append(seen.object)
        return seen.object == "Sea" and looks.count("Sea") in (3, 6)

    monkeypatch.setattr(search, "recognised", recognised)
    monkeypatch.setattr(search, "improve", lambda *a: (steps.append(len(a[3])), improve(*a)))
    cats, sea = ROWS.read(attacked())
    assert (cats.after, cats.steps, sea.before, sea.after, sea.steps) == (False, 6, False, True, 4)
    assert steps[-3:] == [2, 2, 1] and looks.count("Sea") == 6


def test_a_found_prompt_is_the_likeliest_words(attacked, never, monkeypatch, tiny_sd):
    """Drawn as they are: suffixed, right before the end."""
    drawn, states, improve = [], [], search.improve
    monkeypatch.setattr(attack, "sample", lambda *a: (drawn.append(a[1]), draw(*a))[1])
    monkeypatch.setattr(search, "improve", lambda *a: (improve(*a), states.append(a[5].clone())))
    rows, sd = ROWS.read(attacked(position="suffix")), load_sd(tiny_sd)
    plain = sd.tokens(["A Cats image in Sketch style.", "A Sea image in Sketch style."])
    found = plain.new_tensor([list(map(int, row.ids.split())) for row in rows])
    likeliest = states[-1].max(-1).values
    words = search.vocabulary(sd, False).tolist()
    places = torch.tensor([[words.index(word) for word in row] for row in found.tolist()])
    assert torch.equal(states[-1].gather(-1, places[..., None])[..., 0], likeliest)
    ends = [row.index(sd.tokenizer.eos_token_id) for row in plain.tolist()]
    assert torch.equal(drawn[-1], textgrad.insert(plain, found, ends))
    assert sd.tokenizer.decode(drawn[-1][0], True).startswith("a cats image in sketch style")


def test_start_and_end_are_found_only_if_they_may_be(tiny_sd):
    sd = load_sd(tiny_sd)
    words, everything = (search.vocabulary(sd, special).tolist() for special in (False, True))
    assert everything == list(range(len(sd.text_encoder.get_input_embeddings().weight)))
    assert {*everything} - {*words} == {*sd.tokenizer.all_special_ids} != set()


def test_retokenised_prompts_are_those_of_their_text(tiny_sd):
    sd = load_sd(tiny_sd)
    ids = sd.tokens(["Cats in Sketch style"])
    end = sd.tokenizer.eos_token_id
    split = sd.tokenizer("ca", add_special_tokens=False)["input_ids"]
    split += sd.tokenizer("ts", add_special_tokens=False)["input_ids"]
    odd = textgrad.insert(ids, ids.new_tensor([[end, *split]]), [1])
    assert (
        search.retokenised(sd, odd) == sd.tokens([sd.tokenizer.decode(split) + " cats in sketch style"])
    ).all()


def test_another_size_of_block_finds_the_same(attacked, never, whole):
    table = made(attacked("Sketch", "--batch", "1"))["attack.csv"].decode()
    found = [[line.split(",")[:9] for line in text.splitlines()] for text in (table, whole[TABLE].decode())]
    assert found[0] == found[1]


def test_what_is_drawn_belongs_to_prompt_and_timestep():
    plan = SimpleNamespace(iterations=2, tokens=3)
    block = [
        SimpleNamespace(cell=("Sketch", obj, 188), latents=torch.zeros(4, 2, 2)) for obj in ("Cats", "Sea")
    ]
    both, alone, later = (
        list(search.draws(*of)) for of in ((block, plan, 10), (block[1:], plan, 10), (block, plan, 30))
    )
    assert [part.shape for part in both[0]] == [(2, 4, 2, 2), (2, 3)] and len(both) == 2
    for step in range(2):
        for part in range(2):
            assert torch.equal(alone[step][part][0], both[step][part][1])
    drawn = [
        part[i].flatten().tolist()
        for steps in (both, later)
        for step in steps
        for part in step
        for i in (0, 1)
    ]
    assert len({number for numbers in drawn for number in numbers}) == sum(map(len, drawn))


def test_all_that_a_chain_of_runs_forgot_is_attacked(attacked, never, runs):
    folder = attacked("Sketch~Cats")
    assert (runs / "base/attack/Sketch,Cats/attack.csv").exists()
    cells = [
        ("Sketch", "Sketch", "Cats"),
        ("Sketch", "Sketch", "Sea"),
        ("Cats", "Rust", "Cats"),
        ("Cats", "Sketch", "Cats"),
    ]
    assert [row[:3] for row in ROWS.read(folder)] == cells
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.png")} == {
        f"{target}/{theme}_{obj}_seed188.png" for target, theme, obj in cells
    }


@pytest.mark.parametrize("calls", [1, 4, 5])
def test_an_interrupted_attack_ends_in_the_same_bytes(runs, attacked, never, whole, monkeypatch, calls):
    """In the base model's second timestep, in the run's second, and in its third."""
    improve, steps = search.improve, []
    monkeypatch.setattr(search, "improve", tiny.interrupt(improve, calls))
    with pytest.raises(SystemExit) as stop:
        attacked()
    assert stop.value.code == 130 and made(runs) != whole
    monkeypatch.setattr(search, "improve", lambda *a: (steps.append(a[-1]), improve(*a)))
    attacked()
    assert len(steps) == 6 - calls  # what was finished before is not done again
    assert made(runs) == whole


def test_a_killed_attack_ends_in_the_same_bytes(runs, attacked, words, tmp_path, monkeypatch):
    more = {"timesteps": 5, "answers": protocol_file(tmp_path, name="large", size=64)}
    monkeypatch.setattr(judging, "MINI_SIZE", 64)  # as in a process of its own
    process = start("machine_unlearning.attack", "--runs", str(runs / "uce/Sketch"), *words(**more))
    state = runs / "uce/Sketch/attack/.blocks/0/state.pt"
    while not state.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (runs / "uce/Sketch/attack/attack.csv").exists()
    gone_on = made(attacked(**more))
    shutil.rmtree(runs / "uce/Sketch/attack")
    assert made(attacked(**more)) == gone_on


@pytest.mark.parametrize("method", [seot, spm])
def test_methods_that_act_while_sampling(method, tiny_sd, runs, words, never):
    name = method.__name__.split(".")[1]
    run = runs / name / "Sketch"
    more = ["map_size=8", "iterations=0"] if name == "seot" else quick(name)
    method.main(["--target", "Sketch", "--model", str(tiny_sd), "--out", str(run), "--device", "cpu", *more])
    attack.main(["--runs", str(run), *words()])
    assert made(run / "attack")["attack.csv"] != made(runs / "base/attack/Sketch")["attack.csv"]


def refusal(attacked, capsys, *arguments, **changes):
    with pytest.raises(SystemExit) as stop:
        attacked(*arguments, **changes)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_refusals(runs, attacked, capsys, tmp_path):
    assert "seeds: 7 is none of protocol" in refusal(attacked, capsys, seeds=[7])
    assert "position=middle: no such choice" in refusal(attacked, capsys, position="middle")
    assert "tokens=30: 'A Cats image in Sketch style.' leaves room for" in refusal(
        attacked, capsys, tokens=30
    )
    shutil.rmtree(runs / "base")
    other = str(tiny.build_sd(tmp_path / "other", seed=1))
    assert "made from another base model" in refusal(attacked, capsys, "Sketch", "--model", other)
    (runs / "uce/Cats/weights.safetensors").unlink()
    assert "uce/Cats: no weights.safetensors" in refusal(attacked, capsys, "Cats")
    write_record(runs / "uce/Cats", read_record(runs / "uce/Cats") | {"foreign": True})
    assert "was made elsewhere, so there is no model to ask" in refusal(attacked, capsys, "Cats")
    assert "no such protocol" in refusal(attacked, capsys, "Sketch", "--attack", "minii")
    assert not (runs / "base").exists()


def test_results_of_two_attacks_do_not_mix(finished, runs, attacked, capsys):
    shutil.copytree(finished, runs, dirs_exist_ok=True)
    assert "holds an attack of another attack" in refusal(attacked, capsys, lr=0.2)
