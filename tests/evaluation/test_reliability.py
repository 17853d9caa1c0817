"""Reliability of a table: correlations, variance components, and the command."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from evaluation import reliability
from evaluation.answers.predictions import JudgedAnswers
from evaluation.metrics import reliability as metric
from evaluation.metrics.reliability import METHOD, SEED, TARGET, TRAINING

RESULTS = Path(__file__).parents[2] / "results/mini"
ORIGIN = JudgedAnswers(RESULTS / "base/answers").origin


def drawn(sizes, seed=0, **variances):
    """Values of a random-effects model; keywords name axes by their letters, as `mt`."""
    generator, axes = np.random.default_rng(seed), dict(zip("mtrs", range(4)))
    values = np.zeros(sizes)
    for letters, variance in variances.items():
        shape = [n if axis in [axes[c] for c in letters] else 1 for axis, n in enumerate(sizes)]
        values = values + generator.normal(0, variance**0.5, shape)
    return values


def test_components_of_a_table_that_was_drawn_from_them():
    true = {"m": 4.0, "t": 2.0, "mt": 1.0, "mr": 3.0, "mtrs": 0.5}
    estimates = [metric.components(drawn((12, 10, 4, 3), seed, **true)) for seed in range(60)]
    axes = dict(zip("mtrs", range(4)))
    for chosen in estimates[0]:
        letters = "".join(c for c, axis in axes.items() if axis in chosen)
        mean = np.mean([estimate[chosen] for estimate in estimates])
        assert mean == pytest.approx(true.get(letters, 0), abs=0.25 + 0.2 * true.get(letters, 0))


def test_components_are_those_of_two_way_analysis_of_variance():
    """By hand: method and target crossed, seeds within; that of the interaction is taken off."""
    values = drawn((5, 4, 1, 1), m=1.0, t=1.0, mt=1.0)
    table = values[:, :, 0, 0]
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = ((table - rows - columns + table.mean()) ** 2).sum() / 12
    method = (4 * rows.var(ddof=1) - rest) / 4
    found = metric.components(values)
    assert set(found) == {(METHOD,), (TARGET,), (METHOD, TARGET)}
    assert found[METHOD, TARGET] == pytest.approx(rest) and found[METHOD,] == pytest.approx(max(0, method))


def test_reliability_is_the_correlation_with_another_table_of_the_same_methods():
    methods = drawn((400, 1, 1, 1), 3, m=1.0)
    first, second = (drawn((400, 4, 1, 2), seed, t=5.0, mt=2.0, mtrs=1.0) + methods for seed in (1, 2))
    observed = np.corrcoef(first.mean((1, 2, 3)), second.mean((1, 2, 3)))[0, 1]
    variances, sizes = metric.components(first), {TARGET: 4, TRAINING: 1, SEED: 2}
    assert metric.reliability(variances, sizes) == pytest.approx(observed, abs=0.08)
    needed = metric.needed(variances, sizes, TARGET)
    assert metric.reliability(variances, sizes | {TARGET: needed}) >= 0.8
    assert metric.reliability(variances, sizes | {TARGET: needed - 1}) < 0.8


def test_what_is_alike_for_all_methods_does_not_count():
    values = drawn((6, 4, 1, 2), m=1.0, mt=1.0, mtrs=1.0)
    harder = values + 10 * np.arange(4)[:, None, None]
    sizes = dict(enumerate(values.shape))
    first, second = (metric.reliability(metric.components(table), sizes) for table in (values, harder))
    assert first == pytest.approx(second)
    assert metric.halves(values)[0] == metric.halves(harder)[0]


def test_halves_are_spearman_s_correlation_corrected_for_length():
    values = drawn((6, 2, 1, 1), m=1.0, mt=1.0)
    r = spearmanr(*values[:, :, 0, 0].T).statistic
    assert r > 0 and metric.halves(values)[0] == pytest.approx(2 * r / (1 + r))
    assert metric.halves(values[:, :1]) is None
    assert metric.halves(np.ones((6, 4, 1, 1))) is None


def test_trainings_are_compared_by_their_means():
    values = drawn((6, 3, 2, 2), m=1.0, mr=1.0, mt=1.0)
    middle, replicates = metric.trainings(values)
    means = values.mean((1, 3))
    assert middle == pytest.approx(spearmanr(*means.T).statistic)
    assert np.nanmin(replicates) < middle < np.nanmax(replicates)


def test_of_three_trainings_every_two_are_compared():
    values = drawn((6, 3, 3, 2), m=1.0, mr=1.0)
    pairs = [metric.trainings(values[:, :, [a, b]]) for a, b in ((0, 1), (0, 2), (1, 2))]
    middle, replicates = metric.trainings(values)
    assert middle == pytest.approx(np.mean([pair[0] for pair in pairs]))
    np.testing.assert_allclose(replicates, np.mean([pair[1] for pair in pairs], 0))


def test_more_trainings_raise_what_more_targets_do_not():
    variances, sizes = {(METHOD,): 1.0, (METHOD, TRAINING): 1.0}, {TARGET: 10, TRAINING: 2, SEED: 2}
    assert metric.reliability(variances, sizes) == pytest.approx(2 / 3)
    assert metric.needed(variances, sizes, TARGET) is None and metric.needed(variances, sizes, TRAINING) == 4


def printed(capsys, *roots) -> dict[str, dict[str, str]]:
    reliability.main([*map(str, roots)])
    header, _, *rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names, *cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, *rows)]
    return {row[0]: dict(zip(names, row)) for row in cells}


def copied(folder, replaced=()):
    """The shipped runs of three methods, with other fingerprints in all files -> the folder."""
    for method in ("base", "uce", "esd", "fmn"):
        for path in (RESULTS / method).rglob("*"):
            if path.name in ("record.json", "manifest.json", "predictions.csv.gz"):
                packed, content = path.suffix == ".gz", path.read_bytes()
                content = gzip.decompress(content) if packed else content
                for old, new in replaced:
                    content = content.replace(old.encode(), new.encode())
                copy = folder / path.relative_to(RESULTS)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(gzip.compress(content) if packed else content)
    return folder


def refusal(capsys, *roots) -> str:
    with pytest.raises(SystemExit, match="2"):
        reliability.main([*map(str, roots)])
    return capsys.readouterr().err


def test_what_does_not_compare_is_refused(capsys, tmp_path):
    """One training twice, and another protocol's or judges' figures."""
    first, other = copied(tmp_path / "a"), "0123456789abcdef"
    twice = refusal(capsys, first, first)
    assert f"{first}: is of the same base model as {first}; name runs of another training" in twice
    judged = copied(tmp_path / "b", [(ORIGIN.model, other), (ORIGIN.judges[:16], other)])
    assert f"{judged}: has judges {other}+" in refusal(capsys, first, judged)
    near = RESULTS.with_name("mini-near")
    assert f"{near}: has protocol " in refusal(capsys, first, near)


def test_the_command(capsys, tmp_path):
    """Of the shipped runs of three methods; the same figures as a second training's agree with themselves."""
    first, second = copied(tmp_path / "first"), copied(tmp_path / "second", [(ORIGIN.model, "0" * 16)])
    rows = printed(capsys, first, second)
    assert list(rows) == [
        f"{kind} {figure}" for kind in ("style", "object") for figure in ("UA", "IRA", "CRA")
    ]
    assert all(row["methods"] == "3" and row["targets"] == "10" for row in rows.values())
    assert {row["trainings"].split()[0] for row in rows.values()} <= {"1.00", "-"}
    assert {row["method x training"] for row in rows.values()} == {"0"}
    assert all("trainings for 0.8" in row for row in rows.values())
    shutil.rmtree(first / "fmn/Sketch")
    rows = printed(capsys, first)
    assert rows["object UA"]["methods"] == "3" and "style UA" not in rows
    shutil.rmtree(first / "fmn")
    assert "no three methods with the same targets" in refusal(capsys, first)
