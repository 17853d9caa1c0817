"""A process that runs commands one after another on one kind of device, so that libraries are imported once

`cpu` is this machine's, `cuda` its GPU, `pretend` a GPU that `pretend_cuda.py` makes up.
"""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
FAR = {"pretend": 1e-3, "cuda": 0.1}  # how far weights may lie from the CPU's, see `distance`
LEVELS = {"pretend": 1, "cuda": 2}  # and pixels


class Worker:
    """Its commands run in the folder, and keep there what they keep in `.cache`."""

    def __init__(self, kind: str, folder: Path):
        self.folder, self.device = folder, "cpu" if kind == "cpu" else "cuda"
        self.far, self.levels = FAR.get(kind), LEVELS.get(kind)
        (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.device.worker", kind],
            cwd=folder,
            # else MKL rounds by where a tensor happens to lie in memory
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, *words, stop: tuple[str, int] | None = None) -> None:
        """Runs a command with the flag --device, which is to end well and draw no number on the device.

        With `stop`, a function's dotted name and a number of calls, the call after these is a Ctrl-C.
        """
        self.call(module, *words, "--device", self.device, stop=stop)

    def call(self, module: str, *words, stop: tuple[str, int] | None = None) -> None:
        """`run` with all flags given."""
        self.process.stdin.write(json.dumps([module, [*map(str, words)], stop]) + "\n")
        self.process.stdin.flush()
        answer = SimpleNamespace(**json.loads(self.process.stdout.readline()))
        command = f"{module} {' '.join(map(str, words))}\n{answer.said}"
        assert answer.code == (130 if stop else 0), command
        assert not answer.drawn, f"{command}\nnumbers drawn by the device: {answer.drawn}"

    def shares_cache(self, other: "Worker") -> None:
        """Gets all that the other keeps, such as the very SAE that a run was made with."""
        if (kept := other.folder / ".cache").exists():
            shutil.copytree(kept, self.folder / ".cache", dirs_exist_ok=True)

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait() == 0


def distance(got: dict, wanted: dict, begun: dict) -> float:
    """|got - wanted| / |wanted - begun| of weights in dicts of tensors, norms over all of them."""
    assert got.keys() == wanted.keys()

    def norm(one, other):
        return sum(float((one[name].double() - other[name].double()).square().sum()) for name in wanted)

    return (norm(got, wanted) / norm(wanted, begun)) ** 0.5


def same_pictures(got: Path, wanted: Path, levels: int) -> bool:
    """Whether two folders hold PNG files of the same names, none of whose values differ by more `levels`."""
    names = sorted(path.relative_to(wanted) for path in wanted.rglob("*.png"))
    assert names and names == sorted(path.relative_to(got) for path in got.rglob("*.png"))
    pairs = [[np.asarray(Image.open(root / name)).astype(int) for root in (got, wanted)] for name in names]
    return all(np.abs(one - other).max() <= levels for one, other in pairs)


def main(kind: str) -> None:
    """Answers every line of standard input, a command, with a line of what became of it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if kind == "pretend":
        from tests.device import pretend_cuda

        kept = pretend_cuda.install()  # noqa: F841  has to live on
    import torch
    from accelerate.state import AcceleratorState

    made_small()
    begun = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    for line in sys.stdin:
        drawn = []
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = begun  # as in a new process
        AcceleratorState._reset_state(reset_partial_state=True)
        if kind == "pretend":
            pretend_cuda.forget()
        code, said = answer(*json.loads(line))
        if kind == "pretend":
            drawn = [f"{where} {what}" for sort, where, what in pretend_cuda.seen if sort == "rng"]
        print(json.dumps({"code": code, "said": said, "drawn": drawn}), file=answers, flush=True)


def answer(module: str, words: list[str], stop) -> tuple[int, str]:
    """-> the exit code of a command, the end of what it says."""
    with open("log.txt", "w+") as log:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), stopped(stop):
            try:
                importlib.import_module(module).main(words)
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
                code = 1
        log.seek(0)
        return code, log.read()[-4000:]


@contextlib.contextmanager
def stopped(stop):
    if not stop:
        yield
        return
    from tests.tiny import interrupt

    (path, _, name), calls = stop[0].rpartition("."), stop[1]
    module, _, kind = path.rpartition(".")
    is_class = kind[0].isupper()
    owner = getattr(importlib.import_module(module), kind) if is_class else importlib.import_module(path)
    through = getattr(owner, name)
    setattr(owner, name, interrupt(through, calls))
    yield
    setattr(owner, name, through)


def made_small() -> None:
    """Trainings keep a state of every step they can; the miniature of style transfer has four cells; no
    picture is drawn twice; the miniature's judges look at images of 16 pixels, too."""
    from evaluation.core import checkpoint
    from evaluation.judges import judging
    from evaluation.mini import dataset
    from style_transfer import protocol
    from tests import drawings

    checkpoint.SECONDS, judging.MINI_SIZE, dataset.image = -1, 16, drawings.image
    small = replace(protocol.load("transfer-mini"), styles=("Rust", "Sketch"), objects=("Cats", "Sea"))
    protocol.load = lambda name: small


if __name__ == "__main__":
    main(sys.argv[1])
