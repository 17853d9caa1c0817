"""FMN: the norm and its gradient, whose tokens are steered away from, and the tokens learned before."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from diffusion_model_finetuning.core.sd import diffusion_loss, load_sd
from evaluation import canvas
from machine_unlearning.core import cli, embeddings, params
from machine_unlearning.fmn import invert, train
from tests import tiny

QUICK = ["steps=2", "invert_steps=2", "batch=2", "size=16", "images=1", "lr=1e-3"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@pytest.fixture
def sd(tiny_sd):
    return load_sd(tiny_sd)


def words(model, target, out, *more):
    return ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu", *QUICK, *more]


def parse(model, target, *more):
    return cli.parse(train.__doc__, train.__file__, words(model, target, "unused", *more))


def refused(capsys, argv):
    with pytest.raises(SystemExit) as exit:
        train.main(argv)
    assert exit.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_loss_is_one_norm_over_all_layers_and_needs_no_attention_elsewhere():
    maps = [torch.rand(2, 3, 4, 7, dtype=torch.float64), torch.rand(2, 5, 6, 7, dtype=torch.float64)]
    chosen = torch.cat([m[..., [1, 4]].flatten() for m in maps])
    torch.testing.assert_close(train.fmn_loss(maps, [1, 4]), chosen.pow(2).sum().sqrt())
    for m in maps:
        m[..., [1, 4]] = 0
    assert train.fmn_loss(maps, [1, 4]) == 0


def test_loss_of_uniform_and_of_undivided_attention():
    uniform = torch.full((1, 2, 9, 8), 1 / 8)
    torch.testing.assert_close(train.fmn_loss([uniform], [3]).item(), (2 * 9) ** 0.5 / 8)
    undivided = torch.nn.functional.one_hot(torch.full((1, 2, 9), 3), 8).float()
    torch.testing.assert_close(train.fmn_loss([undivided], [3]).item(), 18**0.5)


def test_gradient_is_the_maps_own_direction_and_finite_at_zero():
    m = torch.rand(1, 2, 3, 5, requires_grad=True)
    loss = train.fmn_loss([m], [0, 2])
    loss.backward()
    expected = torch.zeros_like(m)
    expected[..., [0, 2]] = (m / loss)[..., [0, 2]]
    torch.testing.assert_close(m.grad, expected.detach())
    zero = torch.zeros(1, 2, 3, 5, requires_grad=True)
    train.fmn_loss([zero, zero], [0]).backward()
    assert zero.grad.isfinite().all()


def test_positions_of_each_pooler():
    ids = [90, 1, 2, 70, 71, 99, 99, 99]
    assert train.resteered(ids, [3, 4], 99, "none") == [3, 4]
    assert train.resteered(ids, [3, 4], 99, "first_eot") == [3, 4, 5]
    assert train.resteered(ids, [3, 4], 99, "all_eot") == [3, 4, 5, 6, 7]
    assert train.resteered([90, 70, 71, 99, 0, 0], [1, 2], 99, "all_eot") == [1, 2, 3]  # another padding


def test_order_of_tokens():
    assert train.assigned(10, "natural") == [*range(10)]
    assert train.assigned(10, "lexicographic") == [9, *range(9)]
    assert train.assigned(4, "lexicographic") == [*range(4)]


def test_new_tokens_stand_where_the_template_says(sd):
    prompt = invert.spell(sd, "An image in {tokens} style.", 4)
    new = [sd.tokenizer.convert_tokens_to_ids(f"<s{i}>") for i in (1, 2, 3, 4)]
    assert prompt.ids[prompt.places].tolist() == new and prompt.places.tolist() == [4, 5, 6, 7]
    plain = sd.tokens(["An image in style."])[0]
    assert [i for i in prompt.ids.tolist() if i not in new] == plain[:-4].tolist()


def test_new_tokens_that_are_known_words_embed_as_those_words(sd):
    """c(v) with v the rows of two words is the embedding of the prompt with these words."""
    plain, before = "An image in Neon Lines style.", sd.fingerprint()
    ids = sd.tokenizer("Neon Lines", add_special_tokens=False)["input_ids"]
    rows = sd.text_encoder.get_input_embeddings().weight[ids].clone().requires_grad_()
    text = invert.encode(sd, invert.spell(sd, "An image in {tokens} style.", len(ids)), rows)
    torch.testing.assert_close(text, sd.embed([plain]))
    text.sum().backward()
    assert rows.grad.abs().sum() > 0 and sd.fingerprint() == before


def test_initial_tokens(sd):
    table = sd.text_encoder.get_input_embeddings().weight
    (target,) = canvas.parse_targets("Neon_Lines")
    ids = sd.tokenizer("Neon Lines", add_special_tokens=False)["input_ids"]

    start = invert.initial(sd, target, 6, "words", torch.Generator().manual_seed(0))
    assert torch.equal(start[: len(ids)], table[ids])
    lengths = start[len(ids) :].norm(dim=1)
    torch.testing.assert_close(lengths, table.norm(dim=1).mean().expand_as(lengths))

    raw = sd.tokenizer("Neon_Lines")["input_ids"]
    port = invert.initial(sd, target, 400, "port", torch.Generator().manual_seed(0))
    assert torch.equal(port[: len(raw)], table[raw])
    assert raw[0] == sd.tokenizer.bos_token_id and raw[-1] == sd.tokenizer.eos_token_id
    assert abs(port[len(raw) :].std() - 1) < 0.05


def test_pull_moves_lengths_and_keeps_directions():
    rows = torch.randn(5, 8)
    torch.testing.assert_close(invert.pull(rows, 0.4, 0.0), rows)
    pulled = invert.pull(rows, 0.4, 0.1)
    torch.testing.assert_close(pulled.norm(dim=1), 0.9 * rows.norm(dim=1) + 0.04)
    torch.testing.assert_close(torch.cosine_similarity(rows, pulled), torch.ones(5))
    torch.testing.assert_close(invert.pull(rows, 0.4, 1.0).norm(dim=1), torch.full((5,), 0.4))


def test_inversion_fits_the_images_and_changes_nothing_else(sd, tiny_sd):
    """Noise is predicted better with the learned tokens than with those it began with."""
    # untrained, the UNet hardly tells prompts apart
    sd.unet.load_state_dict({n: 3 * w if ".attn2." in n else w for n, w in sd.unet.state_dict().items()})
    args = parse(tiny_sd, "Sketch", "invert_steps=30", "invert_lr=1e-2", "batch=8")
    s, (target,) = args.settings, args.targets
    moments = sd.moments(torch.stack([item["image"] for item in train.concept_images(args, target)]))
    start = invert.initial(sd, target, s.tokens, s.start, torch.Generator().manual_seed(0))
    before = sd.fingerprint()
    run = SimpleNamespace(args=args, generator=torch.Generator().manual_seed(0))
    learned = invert.invert(sd, target, moments, s, run)
    assert sd.fingerprint() == before
    prompt = invert.spell(sd, s.invert_prompt, s.tokens)

    @torch.no_grad()
    def error(tokens):
        generator = torch.Generator().manual_seed(1)
        x0 = sd.sample_moments(moments.repeat(20, 1, 1, 1), generator)
        text = invert.encode(sd, prompt, tokens).expand(len(x0), -1, -1)
        return diffusion_loss(sd, x0, text, generator)

    assert error(learned) < error(start)


def test_images_are_those_that_show_the_target(tiny_sd):
    def shown(target, images):
        args = parse(tiny_sd, target, f"images={images}")
        return args, train.concept_images(args, args.targets[0])

    (args, style), (_, obj), (_, pair) = (shown(target, 2) for target in ("Sketch", "Cats", "Rust+Sea"))
    assert style.rows == [("Sketch", o, n) for o in args.world.objects for n in (1, 2)]
    assert obj.rows == [(theme, "Cats", n) for theme in args.world.themes for n in (1, 2)]
    assert (canvas.PHOTO, "Cats", 1) in obj.rows
    assert pair.rows == [("Rust", "Sea", 1), ("Rust", "Sea", 2)]
    assert len(shown("Rust+Sea", 18)[1]) == 18


def test_stores_what_the_loss_reaches(tiny_sd, tmp_path):
    """Not the last cross-attention's values and output, nor what follows: no attention depends on them."""
    before = tiny.weights_of(tiny_sd)
    cross = {name for name in before if params.SCOPES["xattn"](name)}
    block = max(name.partition(".attn2.")[0] for name in cross if name.startswith("up_blocks"))
    inside = [f"{block}.{part}." for part in ("attn2.to_v", "attn2.to_out", "norm3", "ff")]
    after = (*inside, block.partition("transformer")[0] + "proj_out.", "conv_norm_out.", "conv_out.")
    reached = {name for name in before if not name.startswith((*after, "text_encoder."))}
    assert len(cross - reached) == 3
    for scope, expected in (("xattn", cross & reached), ("full", reached)):
        run = tmp_path / scope
        train.main(words(tiny_sd, "Cats", run, f"scope={scope}"))
        assert set(load_file(run / "weights.safetensors")) == expected
        assert tiny.changed(before, tiny.weights_of(tiny_sd, run)) == expected


def test_attention_to_the_concept_falls(tiny_sd, tmp_path):
    train.main(words(tiny_sd, "Sketch", tmp_path / "run", "steps=30", "invert_steps=1", "batch=8"))
    log = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert len(log) == 30 and log[-1] < 0.9 * log[0]


def test_several_targets_learn_each_from_its_own_images(tiny_sd, tmp_path, monkeypatch):
    seen = []

    def record(sd, target, moments, s, run):
        seen.append((str(target), len(moments)))
        return original(sd, target, moments, s, run)

    original = train.invert
    monkeypatch.setattr(train, "invert", record)
    train.main(words(tiny_sd, "Cats,Sea", tmp_path / "run"))
    assert seen == [("Cats", 2 * 11), ("Sea", 2 * 11)]  # with their mirror images


def test_published_is_the_port(tiny_sd, tmp_path):
    style, obj = (parse(tiny_sd, target, "--variant", "published").settings for target in ("Rust", "Cats"))
    for s in (style, obj):
        assert (s.pooler, s.order, s.start) == ("all_eot", "lexicographic", "port")
    assert style.scope == "xattn" and style.clip == 1.0
    assert obj.scope == "full" and obj.clip == 0 and obj.prompt != obj.invert_prompt
    port = [f"{key}={style[key]}" for key in ("pooler", "order", "start", "tokens")]
    train.main(words(tiny_sd, "Rust", tmp_path / "run", *port, "clip=0.0"))
    assert (tmp_path / "run/record.json").exists()


def test_refusals(tiny_sd, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert "pooler=last: no such choice; choose from none" in refused(
        capsys, words(tiny_sd, "Rust", out, "pooler=last")
    )
    assert "did you mean natural" in refused(capsys, words(tiny_sd, "Rust", out, "order=naturel"))
    card = cli.read_card(tiny_sd)
    monkeypatch.setattr(cli, "read_card", lambda *_: {k: v for k, v in card.items() if k != "data"})
    assert "--data is missing" in refused(capsys, words(tiny_sd, "Rust", out))
    assert "are missing" in refused(capsys, words(tiny_sd, "Rust", out, "--data", str(tmp_path)))
    assert not out.exists()
    monkeypatch.undo()
    assert "tokens=1: the name" in refused(capsys, words(tiny_sd, "Neon_Lines", out, "tokens=1"))
    assert "tokens=40" in refused(capsys, words(tiny_sd, "Rust", out, "tokens=40"))
