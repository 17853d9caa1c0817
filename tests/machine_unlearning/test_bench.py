"""The bench of sampling: counted FLOPs, the full table's images, what it prints."""

import re

import pytest

from evaluation import protocol
from machine_unlearning import bench
from tests.commands import answer
from tests.tiny import METHODS


@pytest.fixture
def printed(tiny_sd, capsys):
    def run(*words):
        bench.main(["--model", str(tiny_sd), "--device", "cpu", "--dtype", "float32", *words])
        return capsys.readouterr().out

    return run


def rows(text: str) -> list[list[str]]:
    """Cells of the tables' lines."""
    return [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]


def test_rates_and_forecast(printed):
    table = rows(printed("--batch", "1", "4", "--steps", "1"))
    measured = [row for row in table if row[0] == "float32"]
    assert [row[1:3] for row in measured] == [["1", "no"], ["4", "no"]]
    step, besides, speed, _, memory = (float(cell.strip("%")) for cell in measured[1][3:])
    steps = protocol.load("mini").steps
    assert speed == pytest.approx(4 / (besides + steps * step), rel=0.01) and memory > 0.1
    hours = {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in table[-len(METHODS) - 2 :]}
    assert hours.keys() == {"base", *METHODS, "all"}
    assert hours["base"][0] == 5_100 and hours["esd"][0] == 70 * 5_100
    assert hours["seot"][0] == 50 * 20 * 5 + 20 * 51 * 5
    assert hours["all"][0] == sum(images for name, (images, _) in hours.items() if name != "all")
    fastest = max(float(row[5]) for row in measured)
    assert hours["esd"][1] == pytest.approx(357_000 / fastest / 3600, rel=0.02, abs=0.1)


def test_hours_are_those_of_the_protocol_whatever_guidance_is_timed():
    """Half a guided step's rows are timed: an image takes twice as many calls."""
    plain, fast = bench.Rate("float32", 2, False, 1.0, 4.0, 0), bench.Rate("float32", 2, True, 0.5, 4.0, 0)
    assert plain.images(200) == 2 / 204
    hours = bench.forecast([plain, fast], 200)
    assert hours["esd"] == (357_000, pytest.approx(357_000 / (2 / 104) / 3600))
    assert hours["spm"] == (357_000, pytest.approx(357_000 / (2 / 204) / 3600))  # it is not compiled


def test_flops_of_sd15_are_those_counted_by_hand():
    """The issue's: 0.80 TFLOP a row, 163 an image of 100 guided steps. Nothing is computed."""
    unet, vae = (bench.empty(bench.SD15, part) for part in ("unet", "vae"))
    sd = bench.StableDiffusion(unet, vae, None, bench.clip_tokenizer(), None, "")
    flops = bench.count(sd, 512)
    assert flops.row == pytest.approx(0.803e12, rel=0.001)
    assert 200 * flops.row + flops.decode == pytest.approx(163.2e12, rel=0.001)


def test_wrong_words(tmp_path):
    assert "--full is a model of its own" in answer(
        tmp_path, "machine_unlearning.bench", "--full", "--model", "x"
    )
