"""Methods that act while images are sampled, together: as data, and by runs that go on from each other."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from diffusion_model_finetuning import convert
from diffusion_model_finetuning.core.intervention import NOTHING, Intervention, compose
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.record import read_record
from machine_unlearning.core import embeddings
from machine_unlearning.core.weights import load_run
from machine_unlearning.sample import intervention
from machine_unlearning.seot import train as seot
from machine_unlearning.spm import adapters
from machine_unlearning.spm import train as spm
from machine_unlearning.uce import train as uce
from tests import tiny

PROMPTS = ["A Cats image in Sketch style.", "A Sea image in Rust style.", "A Sea image in Winter style."]
QUICK = {
    seot: ["iterations=0"],
    spm: ["steps=2", "walk=2", "batch=1", "size=16", "lr=1", "warmup=0"],
    uce: [],
}
LOOK = {"steps": 3, "guidance": 4.0, "size": 16}


def test_each_method_s_part(tiny_sd):
    entered = []

    @contextmanager
    def within(name):
        entered.append(name)
        yield
        entered.append(-name)

    first = Intervention(
        text=lambda ids, text: text + 1, around=lambda ids, text: within(1), null="ugly", guidance=2.0,
        touches=lambda ids: torch.tensor([True, False, False]),
    )  # fmt: skip
    second = Intervention(
        text=lambda ids, text: text * 3, around=lambda ids, text: within(2), guidance=5.0,
        step=lambda ids, text, steps: text, touches=lambda ids: torch.tensor([False, False, True]),
        stepless=lambda ids, text: -text,
    )  # fmt: skip
    both, ids, text = compose([first, second]), torch.zeros(3, 2), torch.ones(3, 2, 1)
    assert both.text(ids, text).eq(6).all() and both.stepless(ids, text).eq(-1).all()
    with both.around(ids, text):
        assert entered == [1, 2]
    assert entered == [1, 2, -2, -1]
    assert both.touches(ids).tolist() == [True, False, True]
    assert (both.null, both.guidance) == ("ugly", 5.0) and both.step(ids, text, 4) is text
    checked = compose([second, Intervention(step=lambda ids, text, steps: None)])  # only looks at the steps
    assert checked.step(ids, text, 4) is text
    assert compose([]) is NOTHING and compose([first]) is first
    assert compose([first, NOTHING]).touches is None  # what changes everything changes everything


@pytest.fixture(scope="module")
def chain(tiny_sd, tmp_path_factory):
    """SEOT forgets Sketch, then SPM Rust, then UCE Winter, then SEOT Cats: the runs' folders, in order."""
    root = tmp_path_factory.mktemp("chain")
    embeddings.CACHE, kept = root / "cache", embeddings.CACHE
    runs = []
    for n, (method, target) in enumerate([(seot, "Sketch"), (spm, "Rust"), (uce, "Winter"), (seot, "Cats")]):
        words = ["--target", target, "--model", str(tiny_sd), "--device", "cpu", "--out", str(root / str(n))]
        method.main([*words, *QUICK[method], *(["--from", str(runs[-1])] if runs else [])])
        runs.append(root / str(n))
    embeddings.CACHE = kept
    return runs


def test_what_earlier_runs_do_is_carried_on(chain, tiny_sd):
    sd = load_sd(tiny_sd)
    acts = [intervention(sd, run, read_record(run)) for run in chain]
    assert acts[0].touches(sd.tokens(PROMPTS)).tolist() == [True, False, False]
    assert all(act.touches is None for act in acts[1:])  # SPM's adapters touch every prompt
    assert [bool(act.step) for act in acts] == [True] * 4
    left = [sorted(folder.name for folder in run.glob("acting/*")) for run in chain]
    assert left == [[], ["seot"], ["seot", "spm"], ["spm"]]
    factors = [adapters.load(folder, sd.unet).factors for folder in (chain[1], chain[3] / "acting/spm")]
    assert all(torch.equal(factors[0][n][i], factors[1][n][i]) for n in factors[0] for i in (0, 1))
    last, trained = (load_file(run / "weights.safetensors") for run in (chain[3], chain[2]))
    assert trained and last.keys() == trained.keys()
    assert read_record(chain[3])["stored_bytes"] > (chain[1] / adapters.FILE).stat().st_size


def test_pictures_of_the_chain(chain, tiny_sd):
    """Each request changes the pictures of its own prompt, on top of all before."""
    drawn = []
    for run in (None, *chain):
        sd, act = load_sd(tiny_sd), NOTHING
        if run:
            load_run(sd, run)
            act = intervention(sd, run, read_record(run))
        drawn.append(sample(sd, PROMPTS, [0, 1, 2], **LOOK, intervention=act))
    differs = [[bool((a != b).any()) for a, b in zip(*pair, strict=True)] for pair in pairwise(drawn)]
    assert differs[0] == [True, False, False] and differs[1][1] and differs[2][2]
    assert differs[3] == [True, False, False]  # Cats is suppressed beside Sketch, in one prompt


def test_no_file_holds_it(chain, tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        convert.main([str(tiny_sd), str(tmp_path / "out.ckpt"), "--run", str(chain[2])])
    assert stop.value.code == 2 and "seot acts while images are sampled" in capsys.readouterr().err
    assert tiny.changed(tiny.weights_of(tiny_sd), tiny.weights_of(tiny_sd, chain[2]))
