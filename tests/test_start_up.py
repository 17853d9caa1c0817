"""What a method's process imports before its own work; a list and not a clock, so that it holds anywhere."""

import subprocess
import sys

from tests.commands import ROOT
from tests.tiny import METHODS

# of the judges, of other trainings, of plots and tables
NOT_NEEDED = {"timm", "torch_fidelity", "lightning", "tensorboard", "matplotlib", "datasets", "pandas"}
NOT_NEEDED |= {"evaluation.judges"}


def test_methods_import_nothing_that_only_others_need():
    modules = [f"machine_unlearning.{method}.train" for method in METHODS] + ["machine_unlearning.sample"]
    code = f"import sys, {', '.join(modules)}\nprint(*(sys.modules.keys() & {NOT_NEEDED}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
