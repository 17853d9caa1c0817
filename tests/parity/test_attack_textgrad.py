"""UnlearnDiffAtk's inner steps against the original: projection, straight-through gradient, Adam."""

import re

import numpy as np
import pytest
import torch

from machine_unlearning.core.textgrad import descend, simplex, straight_through


@pytest.fixture
def case(seeded_case):
    return seeded_case("attack_textgrad")


def close(got, case, name):
    expected = torch.from_numpy(case[1][name])
    torch.testing.assert_close(got, expected, **case[0]["tolerance"])


def test_projection(case):
    u = case[2]["u"]
    close(simplex(u), case, "projected")
    close(simplex(torch.full_like(u, 1 / u.shape[-1])), case, "projected_uniform")


def test_straight_through_gradient(case):
    words = torch.eye(case[2]["grad_onehot"].shape[-1])  # whose rows are the one-hot vectors themselves
    close(straight_through(case[2]["grad_onehot"], words), case, "ste_grad")


def test_inner_steps(case):
    description, _, inputs = case
    rule = r"Adam\(lr ([\d.e-]+), weight_decay ([\d.e-]+)\)"
    lr, decay = map(float, re.search(rule, description["outputs"]["u_after"]["what"]).groups())
    u, table, target = simplex(inputs["u"]), inputs["table"], inputs["target"]
    optimizer = torch.optim.Adam([u], lr, weight_decay=decay)
    for words in inputs["sampled_tokens"]:
        chosen = table[torch.tensor(words)].view_as(target).requires_grad_()
        loss = inputs["gain"] * (chosen - target).square().mean()
        descend(optimizer, u, straight_through(torch.autograd.grad(loss, chosen)[0], table))
    close(u, case, "u_after")
    np.testing.assert_array_equal(u.argmax(-1).flatten().numpy(), case[1]["argmax"])
