"""Commands that people copy: in the READMEs and inside the scripts, name modules and flags that exist."""

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from evaluation import canvas, protocol, reduced, reliability, tables
from evaluation.core import flags
from evaluation.core.errors import UserError
from scripts import tune
from style_transfer import protocol as transfer_protocol

ROOT = Path(__file__).parent.parent
METHODS = sorted(path.parent.name for path in ROOT.glob("machine_unlearning/*/train.py"))
PAINTERS = sorted(path.parent.name for path in ROOT.glob("style_transfer/*/model.py"))
READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("machine_unlearning/**/README.md")),
    *sorted(ROOT.glob("style_transfer/**/README.md")),
    *sorted(ROOT.glob("diffusion_model_finetuning/**/README.md")),
    *sorted(ROOT.glob("checkpoints/**/README.md")),
]
SCRIPTS = sorted(
    [
        *ROOT.glob("scripts/**/*.sh"),
        *ROOT.glob("machine_unlearning/*/*.sh"),
        *ROOT.glob("style_transfer/*/*.sh"),
    ]
)
OURS = ("evaluation.", "diffusion_model_finetuning.", "machine_unlearning.", "style_transfer.")
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "\\"}


class Parsed(Exception):
    """Carries what argparse made of a command line."""


def shell_lines(path):
    """Command lines of a script, or of the bash blocks of a README, continued lines joined."""
    text = path.read_text()
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", text, re.M | re.S))
    text = text.replace("\\\n", " ")
    for name, values in re.findall(
        r"for (\w+) in ([\w ]+); do", text
    ):  # a loop's commands, for its first value
        text = text.replace(f"${name}", values.split()[0]).replace(f"${{{name}}}", values.split()[0])
    return [line.strip().removeprefix("$ ") for line in text.splitlines()]


def commands(path):
    """The words of every `python -m`, `accelerate launch -m` and `bash` command of a file."""
    for line in shell_lines(path):
        line = re.sub(r"^(?:exec |time |\w+=\S+ )+", "", line)
        if not line.startswith(("python -m ", "accelerate launch ", "bash ")):
            continue
        # flags that may be given
        line = re.sub(r"\$\{\w+:\+[^}]*\}", "", line)
        words = shlex.split(line, comments=True)
        words = words[: next((i for i, word in enumerate(words) if word in ENDS), len(words))]
        words = [
            word for word in words if not re.fullmatch(r"\$\{\w+(\[@\]|:-)\}", word)
        ]  # flags that may be given
        method = (PAINTERS if any("style_transfer" in word for word in words) else METHODS)[0]
        yield [re.sub(r"\$method|METHOD", method, word) for word in words]


COMMANDS = {
    f"{path.relative_to(ROOT)}: {' '.join(words)}": words
    for path in [*READMES, *SCRIPTS]
    if path.exists()
    for words in commands(path)
}


def parse(module, arguments, monkeypatch):
    """The namespace that the module's own parser makes; nothing runs."""

    def stopping(real):
        def stop(self, argv=None, namespace=None):
            raise Parsed(real(self, argv, namespace))

        return stop

    for name in ("parse_args", "parse_intermixed_args"):
        real = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(real))
    monkeypatch.setattr(flags, "data_set", str)  # /path/to/UnlearnCanvas is not there
    with pytest.raises(Parsed) as parsed:
        importlib.import_module(module).main(arguments)
    return parsed.value.args[0]


def check_values(module, args):
    """Targets, protocols and settings of a method exist, unless they are shell variables or placeholders."""
    package, *inner = module.split(".")
    written = {key: value for key, value in vars(args).items() if isinstance(value, str) and "$" not in value}
    if "target" in written and not written["target"].isupper():
        canvas.parse_targets(written["target"])
    if written.get("protocol") and not written["protocol"].isupper() and "." not in written["protocol"]:
        (transfer_protocol if package == "style_transfer" else protocol).load(written["protocol"])
    if package == "machine_unlearning" and inner[0] in METHODS:
        config = OmegaConf.load(ROOT / package / inner[0] / "config.yaml")
        known = {key for variant in config.values() for section in variant.values() for key in section}
        assert {text.partition("=")[0] for text in args.overrides} <= known


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_command(words, monkeypatch):
    if words[0] == "bash":
        script = words[1].replace("$(dirname $0)/../..", str(ROOT)).removeprefix("./")
        assert (ROOT / script).is_file() or "dirname" in script
        return
    module, *arguments = words[words.index("-m") + 1 :]
    assert importlib.util.find_spec(module), f"no module {module}"
    if module.startswith(OURS):
        check_values(module, parse(module, arguments, monkeypatch))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_is_bash(path):
    subprocess.run(["bash", "-n", path], check=True)
    for method in re.findall(r'(?:unlearn|evaluate)\.sh"? (\w+)', path.read_text()):
        assert method in METHODS or method == "METHOD"
    if path.parent.name in METHODS:  # a method's own files run that method
        assert f'.sh" {path.parent.name} "$@"' in path.read_text()


@pytest.mark.parametrize(
    "command",
    [
        "python -m evaluation.predictt x",
        "python -m evaluation.predict --bogus x",
        "python -m machine_unlearning.sample --protocol canvvas --out x",
        f"python -m machine_unlearning.{METHODS[0]}.train --target Skecth --out x",
        f"python -m machine_unlearning.{METHODS[0]}.train --target Sketch --out x lrrr=1",
        "bash scripts/nothing.sh",
    ],
)
def test_the_test_itself(command, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"# A\n\n```bash\n{command}   # a comment\n```\n")
    (words,) = commands(page)
    with pytest.raises((AssertionError, SystemExit, UserError)):
        test_command(words, monkeypatch)


def test_links_of_readmes():
    for page in READMES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text() if page.exists() else ""):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


@pytest.mark.parametrize(
    "words",
    [
        ["results/mini"],
        ["results/mini", "--side-effects"],
        ["results/mini-near"],
        ["results/mini-pairs"],
        ["results/mini-sequential", "--sequential"],
        ["results/mini-adversarial", "--adversarial"],
        ["results/mini-probes", "results/mini-adversarial", "--probe", "all"],
        ["results/mini-probes", "--probe", "distance"],
    ],
)
def test_tables_are_those_of_the_shipped_results(words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    tables.main(words)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = (ROOT / "machine_unlearning/README.md").read_text().splitlines()
    assert len(rows) > 5 and [row for row in rows if row not in text] == []


@pytest.mark.parametrize(
    "page, roots, count",
    [
        ("README.md", ["results/mini"], 6),
        ("README.md", ["results/mini", "results/mini-second"], 6),
        ("machine_unlearning/README.md", ["results/mini-near"], 6),
        ("machine_unlearning/README.md", ["results/mini-near", "results/mini-near-second"], 6),
    ],
)
def test_reliability_is_that_of_the_shipped_results(page, roots, count, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    reliability.main(roots)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = (ROOT / page).read_text().splitlines()
    assert len(rows) == 2 + count and [row for row in rows if row not in text] == []


def test_half_widths_are_those_of_the_shipped_results(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    reduced.main(["results/mini"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = (ROOT / "README.md").read_text().splitlines()
    shown = list(takewhile(lambda line: line.startswith("|"), text[text.index(rows[0]) :]))
    assert len(shown) > 5 and [row for row in shown if row not in rows] == []


def test_tuning_is_that_of_the_shipped_trials(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    tune.main(["--out", "results/tuning/second"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = (ROOT / "machine_unlearning/README.md").read_text().splitlines()
    for search in ("first", "second"):
        assert sorted(path.stem for path in Path("results/tuning", search).glob("*.csv")) == tune.METHODS
    assert len(rows) == 2 + 2 * len(tune.METHODS)
    assert [row for row in rows if row not in text] == []
