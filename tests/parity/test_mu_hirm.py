"""HiRM against the original's loop: targets, activations, gradients, losses, trained weights, embeddings."""

import pytest
import torch

from machine_unlearning.core import text_encoder
from machine_unlearning.hirm.train import high_level, hirm_loss, random_target, trainable
from tests.parity.stand_in import TextModel, close
from tests.seeded_weights import seeded_input

FROZEN = "self_attn.k_proj.bias"  # whose gradient is zero but for rounding


@pytest.fixture
def fixture(fixture_file):
    description, arrays = fixture_file("mu_hirm")
    assert set(description["arrays"]) == set(arrays.files)
    return description, arrays


def target(model, about):
    if about["target"] == "semantic":
        return about["coefficient"] * high_level(model, [about["super_concept"]])[0]
    noise = about["noise"]
    u = torch.from_numpy(seeded_input(*(noise[key] for key in ("name", "shape", "seed", "low", "high"))))
    return random_target(u.double(), about["coefficient"], about["target"])


def results(description, about):
    """Name -> value of a case, as the fixture names them."""
    model, options = TextModel(description), dict(description["optimizer"])
    v = target(model, about)
    got = {"target": v, "h_start": high_level(model, about["prompts"])}
    student = trainable(model.text_encoder)
    optimizer = getattr(torch.optim, options.pop("name"))(student.values(), **options)
    losses = []
    for _ in range(description["epochs"]):
        optimizer.zero_grad()
        loss = hirm_loss(high_level(model, about["prompts"]), v)
        loss.backward()
        if not losses:
            got |= {f"grad:{name}": weight.grad.clone() for name, weight in student.items()}
        optimizer.step()
        losses.append(loss.detach())
    got |= {f"final:{name}": weight.detach() for name, weight in student.items()}
    return got | {"loss": torch.stack(losses), "embeddings": model.embed(description["embedded_prompts"])}


def test_every_case(fixture):
    description, arrays = fixture
    tolerance = description["suggested_tolerance"]
    unedited = TextModel(description).embed(description["embedded_prompts"])
    close(unedited, arrays["unedited:embeddings"], tolerance)
    unread = {*arrays.files} - {"unedited:embeddings"}
    for name, about in description["cases"].items():
        got = {f"{name}:{key}": value for key, value in results(description, about).items()}
        for key in unread & got.keys():
            close(got[key], arrays[key], tolerance)
        unread -= got.keys()
    assert not unread


def test_what_is_trained_and_supervised(fixture):
    description, _ = fixture
    encoder = TextModel(description).text_encoder
    assert {n for n in description["trained"] if not n.endswith(FROZEN)} == set(trainable(encoder))
    assert f"{text_encoder.layer(encoder, -1)[0]}.self_attn.out_proj" == description["supervised"]["module"]
