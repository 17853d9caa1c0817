"""HiRM: what is trained, towards what, from where."""

import json

import pytest
import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError
from machine_unlearning.hirm import train
from tests import tiny

MODULE = "encoder.layers.1.self_attn.out_proj"


def words(model, target, out, *more):
    flags = ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu"]
    return [*flags, "wording=words", *more]  # what comes later holds


def whole_pass(sd, prompts):
    """h [B,L,D] out of a forward pass that goes on to its end."""
    seen = []
    hook = sd.text_encoder.get_submodule(MODULE).register_forward_hook(lambda *given: seen.append(given[-1]))
    sd.text_encoder(sd.tokens(prompts))
    hook.remove()
    return seen[0]


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_is_the_loop_of_the_paper(tiny_sd, tmp_path):
    """Both prompts at once, each to its own; AdamW as in the code, which trains the keys' bias as well."""
    train.main(words(tiny_sd, "Cats,Sea", tmp_path / "run", "steps=5", "lr=1e-3"))
    sd = load_sd(tiny_sd)
    v = whole_pass(sd, ["Fishes", "Statues"])
    layer = "encoder.layers.0."
    student = {n: w for n, w in sd.text_encoder.named_parameters() if n.startswith(layer) and "norm" not in n}
    assert len(student) == 12 and all(weight.requires_grad_() is weight for weight in student.values())
    optimizer = torch.optim.AdamW(student.values(), 1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-8)
    for logged in losses(tmp_path / "run"):
        loss = F.mse_loss(whole_pass(sd, ["Cats", "Sea"]), v)
        assert logged == pytest.approx(loss.item(), rel=1e-3, abs=2e-6)
        optimizer.zero_grad()
        loss.backward()
        rounding = student.pop(f"{layer}self_attn.k_proj.bias", None)
        assert rounding is None or rounding.grad.norm() < 1e-5 * max(w.grad.norm() for w in student.values())
        optimizer.step()
    after = tiny.weights_of(tiny_sd, tmp_path / "run")
    for name, weight in student.items():
        torch.testing.assert_close(after[f"text_encoder.{name}"], weight.detach(), rtol=1e-4, atol=1e-5)


def test_the_concept_comes_nearer_to_its_super_concept(tiny_sd, tmp_path):
    train.main(words(tiny_sd, "Sketch", tmp_path / "run", "steps=30", "lr=1e-3"))
    plain, edited = (load_sd(tiny_sd) for _ in range(2))
    load_run(edited, tmp_path / "run")
    v = whole_pass(plain, ["Photo"])
    assert F.mse_loss(whole_pass(edited, ["Sketch"]), v) < 0.5 * F.mse_loss(whole_pass(plain, ["Sketch"]), v)


def test_a_later_target_is_the_base_model_s(tiny_sd, tmp_path):
    """Of a super-concept that an earlier run has moved."""
    train.main(words(tiny_sd, "Rust", tmp_path / "first", "lr=1e-2"))
    start = ["--from", str(tmp_path / "first")]
    train.main(words(tiny_sd, "Sketch", tmp_path / "second", "anchor=Rust", "steps=1", *start))
    base, moved = load_sd(tiny_sd), load_sd(tiny_sd)
    load_run(moved, tmp_path / "first")
    h = whole_pass(moved, ["Sketch"])
    wanted, other = (F.mse_loss(h, whole_pass(sd, ["Rust"])).item() for sd in (base, moved))
    assert losses(tmp_path / "second")[0] == pytest.approx(wanted, rel=1e-3, abs=2e-6)
    assert wanted != pytest.approx(other, rel=0.05)


@pytest.mark.parametrize("target", ["joint", "per_token"])
def test_random_targets_belong_to_the_seed(target, tiny_sd, tmp_path):
    def run(seed):
        out = tmp_path / f"{seed}"
        more = [f"target={target}", "coefficient=10.0", "steps=2", "--seed", str(seed)]
        train.main(words(tiny_sd, "Sketch,Rust", out, *more))
        return losses(out)

    first, second = run(0), run(1)
    assert first != second and first[1] < first[0]


def test_random_targets_have_the_length_asked():
    u = torch.rand(5, 8)
    joint, rows = (train.random_target(u, 3.0, kind) for kind in ("joint", "per_token"))
    assert joint.norm().item() == pytest.approx(3)
    torch.testing.assert_close(rows.norm(dim=-1), torch.full((5,), 3.0))
    torch.testing.assert_close(F.cosine_similarity(joint, rows), torch.ones(5))


def test_sentences_go_to_their_substitutes(tiny_sd):
    _, prompts = train.parse(words(tiny_sd, "Cats", "o", "wording=cells"))
    assert len(prompts) == 11 and prompts["A Cats image in Rust style."] == "A Fishes image in Rust style."


def test_sentences_have_no_random_target(tiny_sd):
    with pytest.raises(UserError, match="target=joint needs wording=words"):
        train.parse(words(tiny_sd, "Cats", "o", "wording=cells", "target=joint"))
    with pytest.raises(UserError, match="anchor=cats: sends 'Cats' to itself"):
        train.parse(words(tiny_sd, "Cats", "o", "anchor=cats"))
    with pytest.raises(UserError, match="a prompt that says nothing of Cats"):
        train.parse(words(tiny_sd, "Cats", "o", "prompt="))
