"""Plans and runs many cells, a method on a target each: train, sample, predict, score.

    python -m scripts.sweep --methods esd uce --targets Sketch Cats --out runs/mini --dry-run
    python -m scripts.sweep --model SD --data DATA --executor slurm --max-concurrent 16 --hours 24

A cell is finished when its scores are on disk. What is missing is run, on this machine with one worker a GPU
or as SLURM arrays. Run the command again, after any interruption, to go on: what is finished stays, what
failed is tried again, what still waits or runs is left alone. A cell's commands run in one process that
begins with the training, so the peak memory in its record is that of the training.
"""

import argparse
import contextlib
import fcntl
import os
import shlex
import shutil
from pathlib import Path

from evaluation import accuracy, canvas, protocol
from evaluation.answers.claims import agree
from evaluation.core.errors import UserError, closest, command
from evaluation.core.files import write_json
from evaluation.metrics.figures import check_targets
from evaluation.reporting.collect import score_folder
from scripts.sweep import jobs
from scripts.sweep.cells import BASE, SCORES, TRANSFER, Cell, Costs, describe, images, read, size, work

PROBED = ".sweep/probe.json"
HERE = Path(__file__).parents[2]
UNLEARNING = sorted(path.parent.name for path in HERE.glob("machine_unlearning/*/train.py"))
TRANSFERRING = sorted(path.parent.name for path in HERE.glob("style_transfer/*/transfer.py"))


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="holds {method}/{target} (runs)")
    parser.add_argument("--methods", nargs="*", default=["all"], help="of machine unlearning; all (default)")
    parser.add_argument(
        "--targets", nargs="*", default=["targets"], help="names, the protocol's targets (default), or all"
    )
    parser.add_argument("--transfer", nargs="*", default=[], help="methods of style transfer, or all")
    parser.add_argument(
        "--weights", default="checkpoints/style_transfer", help="of style transfer: holds {method}"
    )
    parser.add_argument("--transfer-protocol", help="transfer, transfer-published, ... (default: by --data)")
    parser.add_argument("--model", default="checkpoints/mini", help="base model: folder or CompVis file")
    parser.add_argument("--config", help="for a file: folder with its sizes and tokenizer")
    parser.add_argument(
        "--data", help="data set: folder {theme}/{object}/{n}.jpg, or mini (default: the model's)"
    )
    parser.add_argument(
        "--protocol", help="canvas, canvas-lite, mini, ..., or a YAML file (default: the model's)"
    )
    parser.add_argument(
        "--flags", default="", help="more for every train.py, such as '--seed 1 --variant published'"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    parser.add_argument(
        "--probe", action="store_true", help="measure a minute of what has no finished cell yet"
    )
    parser.add_argument("--executor", choices=list(jobs.EXECUTORS), default="local")
    parser.add_argument("--workers", type=int, help="local: cells at once (default: one a GPU)")
    parser.add_argument("--max-concurrent", type=int, default=8, help="slurm: cells at once (8)")
    parser.add_argument(
        "--hours", type=float, default=24, help="slurm: time limit; goes on in a second job (24)"
    )
    parser.add_argument("--gpus-per-cell", type=int, default=1, help="slurm (1)")
    parser.add_argument("--cpus-per-cell", type=int, default=8, help="slurm (8)")
    parser.add_argument(
        "--sbatch", nargs="*", default=[], metavar="KEY=VALUE", help="slurm: partition=..., ..."
    )
    args = parser.parse_args(argv)
    args.methods = chosen("--methods", args.methods, UNLEARNING)
    args.transfer = chosen("--transfer", args.transfer, TRANSFERRING)
    if not args.protocol or not args.data:
        from diffusion_model_finetuning.core.load import read_card  # seconds, which a plan can do without

        card = read_card(args.model, args.config)
        args.protocol, args.data = (
            args.protocol or card.get("protocol", "canvas"),
            args.data or card.get("data"),
        )
    args.world = protocol.load(args.protocol)
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    return args


def chosen(flag: str, names: list[str], known: list[str]) -> list[str]:
    for name in names:
        if name not in (*known, "all"):
            raise UserError(f"{flag} {name}: no such method; {closest(name, known)}")
    return known if "all" in names else names


def targets(args) -> list[str]:
    p = args.world
    everything = [name for name in (*p.themes, *p.objects) if name != canvas.PHOTO]
    sets = {"targets": p.targets, "all": everything}
    names = [name for word in args.targets for name in sets.get(word, [word])]
    for name in names:
        check_targets(canvas.parse_targets(name, "--targets"), p)
    return list(dict.fromkeys(names))


def plan(args) -> list[Cell]:
    """The base model first, since every score is compared with its own."""
    cells = [Cell(args.out, method, target) for method in args.methods for target in targets(args)]
    base = [Cell(args.out, BASE, "")] if cells else []
    return [*base, *cells, *(Cell(args.out, TRANSFER, method) for method in args.transfer)]


def commands(cell: Cell, args) -> list[tuple[str, str, list[str]]]:
    """(stage, module, arguments), as scripts/unlearn.sh, evaluate.sh and transfer.sh have them."""
    folder, answers = str(cell.folder), str(cell.answers)
    model = ["--model", args.model, *(["--config", args.config] if args.config else [])]
    if cell.method == TRANSFER:
        weights = ["--weights", str(Path(args.weights) / cell.target), "--data", args.data, "--out", folder]
        chosen = ["--protocol", args.transfer_protocol] if args.transfer_protocol else []
        return [("transfer", f"style_transfer.{cell.target}.transfer", weights + chosen)]
    train, run = [], []
    if cell.method != BASE:
        run = ["--run", folder]
        flags = ["--target", cell.target, *model, "--out", folder, "--data", args.data]
        flags += shlex.split(args.flags)
        train = [("train", f"machine_unlearning.{cell.method}.train", flags)]
    drawn = [*model, *run, "--protocol", args.protocol, "--out", answers]
    return [
        *train,
        ("sample", "machine_unlearning.sample", drawn),
        ("predict", "evaluation.predict", [answers]),
        ("fid", "evaluation.fid", [answers, "--data", args.data]),
    ]


def score(cells: list[Cell], world: protocol.Protocol) -> None:
    """Scores what lacks nothing else, once the base model is judged: arithmetic, so not a job."""
    base = next((cell for cell in cells if cell.method == BASE and cell.judged), None)
    for cell in cells:
        if base and cell.missing(world).keys() == {"score"}:
            result = score_folder(cell.answers, cell.target)
            result["base"] = accuracy.compare(result, cell.answers, base.answers)
            write_json(cell.answers / SCORES, result)


def probe(cells: list[Cell], args) -> None:
    """A minute of drawing, into the base model's answers, and of each training that no cell has finished."""
    known = Costs(cells, seconds := read(args.out / PROBED)).seconds
    methods = {cell.method: cell for cell in cells if cell.method not in (BASE, TRANSFER)}
    if methods and ("", "sample") not in known:
        base, count = cells[0], size(args.world)
        _, module, flags = commands(base, args)[0]
        seconds["/sample"] = jobs.extrapolate(module, flags, lambda: len([*images(base.answers)]), count)
    for method, cell in methods.items():
        if (method, "train") in known:
            continue
        from machine_unlearning.core import cli

        scratch = cell._replace(root=args.out / ".sweep" / "probe" / "run")
        _, module, flags = commands(scratch, args)[0]
        settings = cli.parse("", str(HERE / "machine_unlearning" / method / "train.py"), flags).settings
        log, steps = scratch.folder / "log.jsonl", settings.get("steps", 1)
        shutil.rmtree(scratch.root, ignore_errors=True)
        seconds[f"{method}/train"] = jobs.extrapolate(
            module, flags, lambda log=log: log.read_text().count("\n") if log.exists() else 0, steps
        )
        shutil.rmtree(scratch.root, ignore_errors=True)
    write_json(args.out / PROBED, {key: value for key, value in seconds.items() if value is not None})


def executor(args, gpus: list[str]) -> jobs.Local | jobs.Slurm:
    logs = args.out / ".sweep" / jobs.LOGS
    if args.executor == "local":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // args.workers)))
        return jobs.Local(logs, args.workers, gpus)
    more = dict(text.split("=", 1) for text in args.sbatch)
    gpu = {"gpus_per_node": args.gpus_per_cell} if args.gpus_per_cell else {}
    return jobs.Slurm(
        logs,
        job_name="sweep",
        time=round(60 * args.hours),
        cpus_per_task=args.cpus_per_cell,
        array_parallelism=args.workers,
        **gpu,
        additional_parameters=more,
    )


def visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def alone(out: Path):
    """Two sweeps of one folder would start a cell twice."""
    with open(out / ".sweep" / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when this process ends, however
        except BlockingIOError as error:
            raise UserError(f"--out {out}: another sweep is at work here; wait for it or stop it") from error
        yield


def run(cells: list[Cell], args, executor: jobs.Local | jobs.Slurm, running: set[Path]) -> None:
    """Runs what is missing and scores it; a UserError at the end if a cell failed."""
    score(cells, args.world)
    todo = [cell for cell in cells if work(cell.missing(args.world)) and cell.notes not in running]
    todo = [jobs.Job(cell.notes, commands(cell, args), cell.answers) for cell in todo]
    named, failed = {cell.notes: cell for cell in cells}, []
    try:
        for notes in jobs.run(todo, executor, running):
            cell = named[notes]
            score(cells, args.world)
            if work(cell.missing(args.world)):
                failed.append(f"{cell}: failed, log {jobs.last(notes)['log']}")
            print(failed[-1] if work(cell.missing(args.world)) else f"{cell}: finished", flush=True)
    except KeyboardInterrupt as stop:
        raise UserError("stopped; what was submitted to SLURM goes on. Run this again to follow it") from stop
    if failed:
        raise UserError("\n  ".join([f"{len(failed)} cells failed; run this again to retry", *failed]))


@command
def main(argv=None):
    args = parse(argv)
    cells, gpus = plan(args), visible_gpus() if args.executor == "local" else []
    args.workers = args.workers or (args.max_concurrent if args.executor == "slurm" else max(1, len(gpus)))
    if args.probe:
        probe(cells, args)
    running = jobs.alive(cell.notes for cell in cells)
    about = f"{args.out}: protocol {args.world.name}, model {args.model}"
    costs = Costs(cells, read(args.out / PROBED))
    print(about, *describe(cells, args.world, costs, running, args.workers), sep="\n", flush=True)
    if args.dry_run:
        return
    made_with = {"protocol": args.world.__dict__ | {"hash": args.world.hash}}
    made_with |= {key: getattr(args, key) for key in ("model", "config", "data", "flags")}
    agree(args.out / ".sweep", made_with, "a sweep")
    with alone(args.out):
        run(cells, args, executor(args, gpus), running)


if __name__ == "__main__":
    main()
