"""What a command's process does before its own work: lists and not a clock, so that they hold anywhere."""

import subprocess
import sys

from tests.commands import ROOT
from tests.tiny import METHODS

# of the judges, of other trainings, of plots and tables
NOT_NEEDED = {"timm", "torch_fidelity", "lightning", "tensorboard", "matplotlib", "datasets", "pandas"}
NOT_NEEDED |= {"evaluation.judges"}
MODEL = """
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
"""
# what methods import beside that, and what these import in turn
OURS = {"evaluation", "diffusion_model_finetuning", "machine_unlearning", "omegaconf", "attr"}
OURS |= {"pyarrow", "cloudpickle"}


def printed(code: str) -> list[str]:
    """The words that Python prints of a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_methods_import_the_model_and_little_else():
    modules = [f"machine_unlearning.{method}.train" for method in METHODS] + ["machine_unlearning.sample"]
    code = f"""{MODEL}
import sys
packages = lambda: {{name.partition(".")[0] for name in sys.modules}}
before = packages()
import {", ".join(modules)}
print(*(packages() - before - {OURS}), *(sys.modules.keys() & {NOT_NEEDED}))"""
    assert printed(code) == []


def test_a_table_is_made_without_what_only_models_need():
    slow = {"torch", "diffusers", "transformers", "scipy.stats", "matplotlib"}
    assert printed(f"import sys, evaluation.tables\nprint(*(sys.modules.keys() & {slow}))") == []


def test_no_garbage_is_collected_while_a_command_imports():
    """It would be a fifth of the time; and what was imported is not looked through later, either."""
    code = """
import gc
from evaluation.core.errors import command, early
early("__main__", list)
print(gc.isenabled())
print(command(lambda argv: (gc.isenabled(), gc.get_freeze_count() > 1000))())"""
    assert printed(code) == ["False", "(True,", "True)"]


def test_objects_of_a_command_in_a_running_process_can_be_freed():
    """As in a sweep's job, or a notebook: only `early`, which nothing calls there, makes objects stay."""
    code = """
import gc
from evaluation.core.errors import command
command(lambda argv: None)()
print(gc.isenabled(), gc.get_freeze_count())"""
    assert printed(code) == ["True", "0"]
