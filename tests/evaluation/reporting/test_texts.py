"""Whatever a record or a setting says, a table keeps its shape, and no cell is a formula or a code."""

import csv
import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import figures
from evaluation.canvas import parse_targets
from evaluation.reporting import rows
from evaluation.reporting.formats import latex, markdown, write_csv

NAMES = ["method", "target", "FID"]
ODD = st.lists(st.sampled_from([*"|\\`\n\r\t\x1b\x07\x85\u2028=+-@'\";,&%$#_{}~^<", "a", "1"])).map("".join)
TEXT = st.one_of(st.text(), ODD)
often = settings(derandomize=True, deadline=None, max_examples=60)


def table(*texts):
    return [{"method": text, "target": text[::-1], "FID": 1.5} for text in texts]


@often
@given(TEXT, TEXT)
def test_markdown(first, second):
    lines = markdown(table(first, second), NAMES).split("\n")
    assert len(lines) == 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(NAMES) + 1
        assert line.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


@often
@given(TEXT, TEXT)
def test_latex(first, second):
    lines = latex(table(first, second), NAMES).splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 3
    for line in body:
        bare = re.sub(
            r"\\text(backslash|asciitilde)\{\}|\\\^\{\}|\\[&%$#_{}]|\\textasciicircum\{\}", "", line[:-2]
        )
        bare = re.sub(
            r"\\(textbackslash|textless|textgreater|ensuremath\{[<>]\})(\{\})?|\{\}|\$[<>]\$", "", bare
        )
        assert bare.count("&") == len(NAMES) - 1 and not set(bare) & set("%#{}~")


@often
@given(TEXT, TEXT)
def test_csv(first, second):
    write_csv(file := io.StringIO(), NAMES, table(first, second))
    lines = file.getvalue().splitlines()
    read = [*csv.reader(lines)]
    assert len(read) == 3 and all(len(line) == len(NAMES) for line in read)
    for cell in (cell for line in read for cell in line):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", cell)
        assert cell[:1] not in "=+-@" or not cell or re.fullmatch(r"[+-]\d*\.?\d+", cell)


def test_numbers_are_no_formulas():
    write_csv(
        file := io.StringIO(), ["a", "b", "c", "d"], [{"a": -1.5, "b": "-2.50", "c": "-2+3", "d": ["x", "y"]}]
    )
    assert file.getvalue() == "a,b,c,d\n-1.5,-2.50,'-2+3,x; y\n"


@often
@given(TEXT)
def test_a_label_is_one_line_and_a_figures_file_stays_in_its_folder(text):
    results = [
        SimpleNamespace(
            method="esd",
            variant="v",
            chain=False,
            targets=parse_targets("Sketch"),
            seed=0,
            settings={"lr": value},
            comparable={"protocol": "p"},
        )
        for value in ("usual", "usual", text)
    ]
    label = rows.labels(results)[2]
    assert label == " ".join(label.split()) and not re.search(r"[\x00-\x1f\x7f-\x9f]", label)
    name = figures.file_name(f"became_{label}")
    assert "/" not in name and "\0" not in name and len(name.encode()) < 250


@pytest.mark.parametrize("first, second", [("a/b", "a?b"), ("x" * 120, "x" * 121)])
def test_two_labels_are_two_files(first, second):
    assert figures.file_name(first) != figures.file_name(second)
