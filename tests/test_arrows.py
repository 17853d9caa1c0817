"""The structure, read off the syntax trees: who imports whom, and what is written nowhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHODS = {  # package -> its methods: the folders with this file
    package: sorted(path.parent.name for path in ROOT.glob(f"{package}/*/{file}"))
    for package, file in (("machine_unlearning", "train.py"), ("style_transfer", "model.py"))
}
MAY_IMPORT = {
    "evaluation": set(),
    "diffusion_model_finetuning": {"evaluation"},
    "machine_unlearning": {"evaluation", "diffusion_model_finetuning"},
    "style_transfer": {"evaluation"},
}
WITHOUT_TORCH = (
    "canvas",
    "mini_canvas",
    "protocol",
    "attacks",
    "answers.answer_set",
    "answers.predictions",
    "tables",
)
FLOORS = (  # of evaluation/, lowest first: a module imports from its own floor and those below
    ("core",),
    ("canvas",),
    ("protocol",),
    ("probes",),
    ("attacks",),
    ("mini",),
    ("data", "answers"),  # side by side: neither imports the other
    ("judges",),
    ("metrics",),
    ("reporting",),
    ("drawing",),
)
FILES = [path.relative_to(ROOT) for package in MAY_IMPORT for path in sorted(ROOT.glob(f"{package}/**/*.py"))]


def imported(path, tree):
    """Dotted names of everything a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*path.parent.parts][: len(path.parent.parts) + 1 - node.level])
                if node.level
                else ""
            )
            module = ".".join(filter(None, [base, node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def arrow_faults(path, tree):
    package, *inner = path.parts
    for name in imported(path, tree):
        top, *below = name.split(".")
        if top in MAY_IMPORT and top != package and top not in MAY_IMPORT[package]:
            yield f"imports {name}"
        if top == package and below and below[0] in METHODS.get(top, ()) and below[0] != inner[0]:
            yield f"imports method {below[0]}"
        if "tests" in (top, package):
            yield "imports tests"


def modules_imported(path, tree):
    """Dotted names of the modules of this repository that a module imports."""
    for name in imported(path, tree):
        module = ROOT / name.replace(".", "/")
        while name and not (module.with_suffix(".py").exists() or (module / "__init__.py").exists()):
            name, module = name.rpartition(".")[0], module.parent
        if name.partition(".")[0] in MAY_IMPORT:
            yield name


def floor(part):
    """Of a folder or module in evaluation/; the commands stand on top of all."""
    return next((number for number, parts in enumerate(FLOORS) if part in parts), len(FLOORS))


def floor_faults(path, tree):
    """What evaluation/ imports from a floor above its own, or from a folder beside it."""
    package, *parts = path.with_suffix("").parts
    if package != "evaluation":
        return
    for name in modules_imported(path, tree):
        top, *below = name.split(".")
        other = top == "evaluation" and below and below[0] != parts[0]
        # commands may call each other, as long as there is no circle
        if other and floor(below[0]) >= floor(parts[0]) < len(FLOORS):
            yield f"imports {name}"


def circles(graph):
    """Groups of modules that import each other."""
    done, names = set(), sorted(graph)

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            new = (graph[todo.pop()] & graph.keys()) - seen
            seen |= new
            todo += new
        return seen

    reach = {name: reached(name) for name in names}
    for name in names:
        group = {other for other in reach[name] if name in reach[other]}
        if group and name not in done:
            done |= group
            yield sorted(group)


def written_faults(tree):
    thrown_away = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield "bare except"
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            yield "sys.path"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called.endswith(".cuda"):
            yield ".cuda()"
        if (
            called.endswith("load_state_dict")
            and keywords.get("strict") == "False"
            and id(node) in thrown_away
        ):
            yield "strict=False without a look at the result"
        if called == "torch.load" and keywords.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if called in ("pickle.load", "pickle.loads"):
            yield "pickle"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_module(path):
    tree = ast.parse((ROOT / path).read_text())
    faults = [*arrow_faults(path, tree), *floor_faults(path, tree), *written_faults(tree)]
    if "core" in path.parts and path.name != "errors.py":  # which tells the user
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        faults += ["print in a core" for node in calls if ast.unparse(node.func) == "print"]
    assert not faults


@pytest.mark.parametrize(
    "where, source, fault",
    [
        ("evaluation/a.py", "from machine_unlearning.core import cli", "imports machine_unlearning.core.cli"),
        (
            "evaluation/a.py",
            "def f():\n import diffusion_model_finetuning",
            "imports diffusion_model_finetuning",
        ),
        ("diffusion_model_finetuning/core/a.py", "import machine_unlearning", "imports machine_unlearning"),
        ("machine_unlearning/uce/a.py", "from machine_unlearning.esd.train import x", "imports method esd"),
        ("machine_unlearning/uce/a.py", "from ..esd import train", "imports method esd"),
        ("machine_unlearning/core/a.py", "from machine_unlearning import esd", "imports method esd"),
        ("machine_unlearning/esd/a.py", "from machine_unlearning.esd import train", None),
        ("style_transfer/cast/a.py", "from style_transfer.sanet import model", "imports method sanet"),
        ("style_transfer/core/a.py", "from style_transfer.sanet.model import x", "imports method sanet"),
        ("style_transfer/core/a.py", "import machine_unlearning", "imports machine_unlearning"),
        ("evaluation/core/a.py", "from evaluation import canvas", "imports evaluation.canvas"),
        (
            "evaluation/data/a.py",
            "from evaluation.answers.claims import agree",
            "imports evaluation.answers.claims",
        ),
        (
            "evaluation/metrics/a.py",
            "from evaluation.reporting import rows",
            "imports evaluation.reporting.rows",
        ),
        ("evaluation/metrics/a.py", "def f():\n from evaluation import tables", "imports evaluation.tables"),
        ("evaluation/metrics/a.py", "from evaluation.judges import features", None),
        ("evaluation/a.py", "from evaluation.metrics import figures", None),
        ("evaluation/a.py", "import sys\nsys.path.append('')", "sys.path"),
        ("evaluation/a.py", "model.cuda()", ".cuda()"),
        ("evaluation/a.py", "try:\n pass\nexcept:\n pass", "bare except"),
        (
            "evaluation/a.py",
            "m.load_state_dict(s, strict=False)",
            "strict=False without a look at the result",
        ),
        ("evaluation/a.py", "x = m.load_state_dict(s, strict=False)", None),
        ("evaluation/a.py", "torch.load(path)", "torch.load without weights_only=True"),
    ],
)
def test_the_test_itself(where, source, fault):
    tree = ast.parse(source)
    faults = [*arrow_faults(Path(where), tree), *floor_faults(Path(where), tree), *written_faults(tree)]
    assert faults == ([fault] if fault else [])


def test_no_module_is_in_a_circle():
    """Through whatever others, and also if the import stands within a function."""
    graph = {}
    for path in FILES:
        tree = ast.parse((ROOT / path).read_text())
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {other for other in modules_imported(path, tree) if other != name}
    assert len(graph) > 100 and not list(circles(graph))
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c"]]


def test_the_house_is_a_table_of_contents():
    """Commands and facts on top, parts in folders of about nine files."""
    for folder in (ROOT / "evaluation").iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert len([*folder.glob("*.py")]) - 1 <= 11, folder
    for path in (ROOT / "evaluation").glob("*.py"):
        if path.name not in ("__init__.py", "protocol.py", "attacks.py", "canvas.py"):
            assert 'if __name__ == "__main__":' in path.read_text(), f"{path}: no command"


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_imports_without_torch(name):
    code = f"import sys, evaluation.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_deleting_a_method_breaks_nothing():
    """Nothing outside a method's folder, tests apart, imports it."""
    folders = [(package, method) for package, methods in METHODS.items() for method in methods]
    for path in FILES:
        names = list(imported(path, ast.parse((ROOT / path).read_text())))
        for package, method in folders:
            if path.parts[:2] != (package, method):
                assert not any(f"{name}.".startswith(f"{package}.{method}.") for name in names), path
