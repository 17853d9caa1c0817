"""Wrong words are answered by every command before anything slow is imported, and so is what does not fit
the model, as far as its folder tells."""

import re

import pytest

from tests.commands import COMMANDS, ROOT, answer


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_flag(module, tmp_path):
    assert len(COMMANDS) > 55
    answer(tmp_path, module, "--no-such-flag")


MODEL = f"--model {ROOT}/checkpoints/mini"


@pytest.mark.parametrize(
    "module, words, message",
    [
        (
            "diffusion_model_finetuning.sample",
            f"{MODEL} --prompt a --out a.png --size 60",
            "--size 60: expected a multiple of 8",
        ),
        (
            "diffusion_model_finetuning.sample",
            f"{MODEL} --prompt a --out a.png --photo diffusers.py",
            "--photo diffusers.py: .* draws from text alone",
        ),
        (
            "diffusion_model_finetuning.convert",
            f"{ROOT}/checkpoints/mini a.ckpt --weights ema",
            "--weights ema: the folder .*/mini has one set",
        ),
        (
            "machine_unlearning.seot.train",
            f"{MODEL} --target Sketch --out run map_size=7",
            "map_size=7: latents of 8 x 8 have attention maps of side 8, 4",
        ),
        ("style_transfer.train", "sanet --data . --out run", "--encoder: name the file"),
        ("style_transfer.train", "cast --data . --out run --init pyproject.toml", "--init .*: no such file"),
        ("evaluation.check", "--files nowhere", "--files nowhere: no such folder"),
    ],
)
def test_what_does_not_fit(module, words, message, tmp_path):
    assert re.search(message, answer(tmp_path, module, *words.split()))
