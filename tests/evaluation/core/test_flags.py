"""Flags outside their range are refused by argparse, which names them."""

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.core import flags
from evaluation.core.environment import find_device
from evaluation.core.errors import UserError


def refused(kind, text, capsys=None) -> bool:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", type=kind)
    try:
        parser.parse_args([f"--flag={text}"])
    except SystemExit as exit:
        return exit.code == 2
    return False


@settings(derandomize=True, max_examples=200)
@given(st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])))
def test_whole_numbers_and_decimals(value):
    text = str(value)

    def number(kind):
        try:
            return kind(text)
        except ValueError:
            return float("nan")

    assert refused(flags.whole(1, 1000), text) is not (1 <= number(int) <= 1000)
    assert refused(flags.decimal(0, 1), text) is not (0 <= number(float) <= 1)
    assert refused(flags.decimal(), text) is not (0 <= number(float) < float("inf"))


def test_the_flag_is_named(capsys):
    assert refused(flags.whole(1), "-1")
    assert "argument --flag: -1: expected a whole number, 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "é" * 200, "", "a\0b"])
def test_names_that_no_disk_holds(name):
    assert refused(flags.new_path, name)


@pytest.mark.parametrize("name", ["a", "a b/ü\n", "x" * 255, "/tmp/a", "-x", "a[1]*?"])
def test_names_that_a_disk_holds(name):
    assert not refused(flags.new_path, name)


@pytest.mark.parametrize("name", ["foo", "cuda:x", "cpu:1", "", "CUDA"])
def test_no_kinds_of_device(name):
    assert refused(flags.device, name)


def test_devices_that_are_not_there():
    assert find_device("cpu") == "cpu" and find_device(None) in ("cpu", "cuda")
    with pytest.raises(UserError, match="--device cuda:99: there is no such device here; choose from cpu"):
        find_device("cuda:99")
