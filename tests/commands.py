"""Commands as users start them, where no slow library can be imported: all modules with `@command`."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("evaluation", "diffusion_model_finetuning", "machine_unlearning", "style_transfer", "scripts")
SLOW = ("torch", "transformers", "diffusers", "matplotlib")
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in PACKAGES
    for path in ROOT.glob(f"{package}/**/*.py")
    if re.search("^@command$", path.read_text(), re.MULTILINE)
)


def answer(folder: Path, module: str, *words: str) -> str:
    """What a command says, in an empty folder, that is refused before anything slow is imported."""
    for name in SLOW:
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    last = (done.stderr.splitlines() or [""])[-1]
    assert done.returncode == 2 and "error: " in last and "Traceback" not in done.stderr, done.stderr
    return last
