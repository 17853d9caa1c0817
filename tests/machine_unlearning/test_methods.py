"""Every method there is, by its command line: what it changes, what it leaves behind, what it refuses."""

import functools
import importlib
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from safetensors import safe_open

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.canvas import parse_targets
from machine_unlearning.core import cli, embeddings, weights
from machine_unlearning.core.params import SCOPES
from tests import tiny

FOLDER = Path(__file__).parent.parent.parent / "machine_unlearning"
QUICK = {  # those of them that a method has
    "steps": 2, "walk": 3, "batch": 2, "size": 16, "lr": 1e-3, "accumulate": 1, "warmup": 0,
    "images": 2, "retain_images": 1, "surrogates": 2, "times": 2, "mask_steps": 1, "score_steps": 1,
    "invert_steps": 2, "inner_steps": 0, "epochs": 1, "passes": 1, "keep": 0.5,
    "latents": 64, "k": 3, "patches": 32, "lookup_walk": 2, "lookup_images": 1,
}  # fmt: skip
LAYER = "text_encoder.encoder.layers.0."
TEXT = {  # methods that edit the text encoder, and all they may change; the others change the UNet
    "diff_quickfix": {f"{LAYER}self_attn.out_proj.weight"},
    "hirm": {
        f"{LAYER}{part}.{kind}"
        for part in ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    | {f"{LAYER}self_attn.k_proj.weight"},
}
LAYERS = {"fia": ".ff.net.2.weight"}  # what methods without a scope may change, and not cross-attention
STORELESS = ("seot", "semantic_surgery")  # whose runs are a record
HEADINGS = ["Paper", "Idea", "Run", "Expected numbers", "Cost", "Choices", "Files"]
RECORD = {
    "method", "target", "settings", "variant", "seed", "model", "versions", "commit", "device", "seconds",
    "peak_memory_bytes", "stored_bytes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@functools.cache  # asked for a thousand times; read anew, it would cost more than the trainings
def config(method):
    return OmegaConf.load(FOLDER / method / "config.yaml")


def quick(method):
    known = config(method).canvas.all
    return [f"{key}={value}" for key, value in QUICK.items() if key in known]


def unlearn(method, model, target, out, *more):
    main = importlib.import_module(f"machine_unlearning.{method}.train").main
    main(
        [
            "--target",
            target,
            "--model",
            str(model),
            "--out",
            str(out),
            "--device",
            "cpu",
            *more,
            *quick(method),
        ]
    )
    return out


@pytest.fixture(scope="module")
def trained(tiny_sd, tmp_path_factory):
    """-> function of a method and a target: their finished run, made once and only to be read."""
    root = tmp_path_factory.mktemp("trained")

    def run(method, target):
        out = root / method / target
        return out if (out / "record.json").exists() else unlearn(method, tiny_sd, target, out)

    return run


@pytest.fixture(scope="module")
def fingerprint(tiny_sd):
    return load_sd(tiny_sd).fingerprint()


def stored(run):
    with safe_open(run / "weights.safetensors", "pt") as file:
        return set(file.keys()), file.metadata()


def written(run):
    """All that a run stores as its result; a method that acts while sampling stores no weights."""
    return b"".join(path.read_bytes() for path in sorted(run.glob("*.safetensors")))


def may_change(method, kind="style"):
    """-> rule on the names of UNet and text encoder."""
    if cli.intervenes(method):
        return lambda name: False
    if method in TEXT:
        return TEXT[method].__contains__
    if method in LAYERS:
        return lambda name: LAYERS[method] in name
    sections = [config(method)[name].get(part, {}) for name in ("canvas", "mini") for part in ("all", kind)]
    if maps := [section.maps for section in sections if "maps" in section]:
        assert maps == ["values"]
        return lambda name: ".attn2.to_v." in name
    scopes = [section.scope for section in sections if "scope" in section]
    scope = SCOPES[(scopes or ["xattn_kv"])[-1]]
    return lambda name: not name.startswith("text_encoder.") and scope(name)


def refused(capsys, *command):
    with pytest.raises(SystemExit) as exit:
        unlearn(*command)
    assert exit.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


@pytest.mark.parametrize("method", tiny.METHODS)
@pytest.mark.parametrize("target", ["Sketch", "Cats", "Sketch+Cats", "Sketch,Rust"])
def test_changes_what_its_scope_names_and_nothing_else(method, target, trained, tiny_sd, fingerprint):
    if target == "Sketch+Cats" and "pair" not in config(method).canvas:
        pytest.skip(f"{method} has no settings for a pair")
    run = trained(method, target)
    before, after = tiny.weights_of(tiny_sd), tiny.weights_of(tiny_sd, run)
    names, metadata = stored(run)
    kind = parse_targets(target)[0].kind
    scope = {*filter(may_change(method, kind), before)}
    assert names == tiny.changed(before, after) and names <= scope
    # FMN's loss does not reach the last weights; FIA's mask of a pair may be empty in a layer
    assert method == "fmn" or (method, kind) == ("fia", "pair") or names == scope
    assert metadata == {"model": fingerprint}

    record = json.loads((run / "record.json").read_text())
    assert record.keys() >= RECORD and record["seconds"].keys() == {"setup", "unlearn"}
    assert (record["method"], record["target"], record["variant"], record["seed"]) == (
        method,
        target,
        "mini",
        0,
    )
    assert record["model"] == metadata["model"]
    assert record["stored_bytes"] == len(written(run))
    assert (run / "log.jsonl").exists()


@pytest.mark.parametrize("method", tiny.METHODS)
def test_same_seed_same_bytes(method, trained, tiny_sd, tmp_path):
    def result(name, *more):
        return written(unlearn(method, tiny_sd, "Rust", tmp_path / name, *more))

    first = written(trained(method, "Rust"))
    assert result("again") == first
    # a closed form draws nothing, unless it makes noisy copies, nor does HiRM-S
    if {"steps", "copies"} & {*config(method).canvas.all}:
        assert result("other", "--seed", "1") != first


@pytest.mark.parametrize("method", tiny.METHODS)
def test_goes_on_from_an_earlier_run(method, trained, tiny_sd, tmp_path):
    first, alone = trained(method, "Rust"), trained(method, "Sketch")
    second = unlearn(method, tiny_sd, "Sketch", tmp_path / "second", "--from", str(first))
    if method not in STORELESS:
        assert len({written(run) for run in (first, second, alone)}) == 3
    if cli.intervenes(method):
        return
    states = [tiny.weights_of(tiny_sd, run) for run in (first, second, alone)]
    assert tiny.changed(states[0], states[1]) and tiny.changed(states[1], states[2])
    assert json.loads((second / "record.json").read_text())["from"] == str(first)
    assert stored(second)[0] >= stored(first)[0]


@pytest.mark.parametrize("network", ["UNet", "text encoder"])
def test_weights_of_the_earlier_run_are_kept_when_another_method_goes_on(network, trained, tiny_sd, tmp_path):
    """A narrower scope, of either network, on top of a wider one: the run stores both."""
    names = list(tiny.weights_of(tiny_sd))
    scopes = {
        method: {*filter(may_change(method), names)}
        for method in tiny.METHODS
        if method != "fmn" and not cli.intervenes(method)
    }
    wide = max(scopes, key=lambda method: len(scopes[method]))
    later = [method for method in scopes if (method in TEXT) == (network == "text encoder")]
    narrow = min(later, key=lambda method: len(scopes[method]))
    first = trained(wide, "Rust")
    second = unlearn(narrow, tiny_sd, "Sketch", tmp_path / "second", "--from", str(first))
    moved = tiny.changed(tiny.weights_of(tiny_sd, first), tiny.weights_of(tiny_sd, second))
    assert moved == scopes[narrow] and stored(second)[0] == scopes[wide] | scopes[narrow]


@pytest.mark.parametrize("method", tiny.METHODS)
def test_finished_run_is_skipped_and_another_refused(method, trained, tiny_sd, capsys):
    run = trained(method, "Sketch")
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    unlearn(method, tiny_sd, "Sketch", run)
    assert "already finished" in capsys.readouterr().out
    assert "another target" in refused(capsys, method, tiny_sd, "Rust", run)
    assert "another seed" in refused(capsys, method, tiny_sd, "Sketch", run, "--seed", "5")
    key, value = next((k, v) for k, v in config(method).canvas.all.items() if type(v) is float)
    if f"{key}={QUICK.get(key)}" not in quick(method):
        assert "another settings" in refused(capsys, method, tiny_sd, "Sketch", run, f"{key}={value * 3}")
    assert before == {path: path.stat().st_mtime_ns for path in run.iterdir()}


@pytest.mark.parametrize("method", tiny.METHODS)
def test_refusals_suggest_what_was_meant(method, tiny_sd, tmp_path, capsys):
    out = tmp_path / "run"
    assert "did you mean Sketch" in refused(capsys, method, tiny_sd, "Skecth", out)
    assert "does not know Monet" in refused(capsys, method, tiny_sd, "Monet", out)
    key = "lr" if "lr" in config(method).canvas.all else next(iter(config(method).canvas.all))
    assert f"did you mean {key}" in refused(capsys, method, tiny_sd, "Sketch", out, f"{key}{key[-1]}=1")
    assert "key=value" in refused(capsys, method, tiny_sd, "Sketch", out, key)
    assert "no such diffusers folder" in refused(capsys, method, tmp_path / "nowhere", "Sketch", out)
    assert not out.exists()


@pytest.mark.parametrize("method", tiny.METHODS)
def test_a_failed_run_leaves_no_record(method, tiny_sd, tmp_path, monkeypatch):
    with monkeypatch.context() as stopped, pytest.raises(SystemExit) as exit:
        stopped.setattr(weights, "save_delta", tiny.interrupt(weights.save_delta, 0))
        unlearn(method, tiny_sd, "Sketch", tmp_path / "run")
    assert exit.value.code == 130
    assert not (tmp_path / "run/record.json").exists()
    assert (unlearn(method, tiny_sd, "Sketch", tmp_path / "run") / "record.json").exists()


@pytest.mark.parametrize("method", tiny.METHODS)
def test_folder_is_complete(method):
    folder = FOLDER / method
    for name in ("train.py", "config.yaml", "train.sh", "eval.sh", "README.md"):
        assert (folder / name).exists(), name
    assert {"style", "object"} <= set(config(method).canvas) and set(config(method)) >= {"canvas", "mini"}
    lines = (folder / "README.md").read_text().splitlines()
    found = [line.lstrip("# ").strip() for line in lines if line.startswith("#")]
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


@pytest.mark.parametrize("method", tiny.METHODS)
@pytest.mark.skipif(
    not Path(FOLDER.parent / "checkpoints/mini/model_index.json").exists(), reason="no miniature yet"
)
def test_shipped_miniature_is_the_default(method, tmp_path):
    run = unlearn(method, FOLDER.parent / "checkpoints/mini", "Sketch", tmp_path / "run")
    assert json.loads((run / "record.json").read_text())["variant"] == "mini"
