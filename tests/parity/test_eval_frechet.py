"""The Frechet distance in the forms of three libraries, on seeded activations."""

import numpy as np
import pytest

from evaluation.metrics.frechet import frechet, moments
from tests.seeded_weights import seeded_input


def test_frechet(fixture_file):
    reference, _ = fixture_file("eval_frechet")
    rtol = reference["tolerance"]["rtol"]
    for name, case in reference["cases"].items():
        sets = {}
        for side in ("real", "fake"):
            about = case[side]
            x = seeded_input(side, about["shape"], about["seed"], about["low"], about["high"]).astype(
                np.float64
            )
            assert x.sum() == pytest.approx(about["sum"], rel=1e-9)
            sets[side] = moments(x, chunk=7)
            assert np.trace(sets[side].covariance) == pytest.approx(case[f"trace_{side}"], rel=rtol)
        real, fake = sets["real"], sets["fake"]
        assert np.sum((real.mean - fake.mean) ** 2) == pytest.approx(case["mean_sq"], rel=rtol)
        ours = frechet(real.mean, real.covariance, fake.mean, fake.covariance)
        for form in ("frechet_sqrtm", "frechet_eigvals", "frechet_symmetric"):
            assert ours == pytest.approx(case[form], rel=rtol), (name, form)
