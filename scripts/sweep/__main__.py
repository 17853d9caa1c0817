"""Plans and runs many experiments, a method on a target each: train, sample, predict, measure, score

    python -m scripts.sweep --methods esd uce --targets Sketch Cats --out runs/mini --dry-run
    python -m scripts.sweep --model SD --data DATA --executor slurm --max-concurrent 16 --hours 24

A job trains several targets with one method, after what the method makes once for all of them (`prepare.py`),
then evaluates these runs in one go, or attacks them (`--attack`); what is made of the base model is shared by
all jobs. A chain of requests, Sketch~Cats, is trained in one job, in its order.
An experiment is finished when all its files are there. What is missing is made, on this machine with one
worker a GPU or as SLURM arrays. Run the command again, after any interruption, to go on: what is finished
stays, what failed is tried again, what still waits or runs is left alone. Ctrl-C and SIGTERM stop the jobs on
this machine, and leave those of SLURM.
"""

import argparse
import os
import shlex
from itertools import groupby
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import attacks, canvas, protocol
from evaluation.answers.claims import agree
from evaluation.core import flags
from evaluation.core.errors import UserError, closest, command
from evaluation.core.owner import alone
from evaluation.metrics.distances import FID
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn
from machine_unlearning.core import cli
from machine_unlearning.core.cli import KEEP
from scripts.sweep import jobs
from scripts.sweep.experiments import BASE, SCORES, TRANSFER, Experiment, planned
from scripts.sweep.plan import HERE, PROBED, Costs, describe, probe
from style_transfer import protocol as transfer_protocol

PAPER = ["ca", "ediff", "esd", "fmn", "sa", "salun", "seot", "shs", "spm", "uce"]  # the benchmark's ten
UNLEARNING = sorted(path.parent.name for path in HERE.glob("machine_unlearning/*/train.py"))
TRANSFERRING = sorted(path.parent.name for path in HERE.glob("style_transfer/*/model.py"))


def flag_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=flags.new_folder, default="runs", help="holds {method}/{target} (runs)")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=["all"],
        help="of machine unlearning; paper (the benchmark's ten), all (default)",
    )
    parser.add_argument(
        "--targets",
        nargs="*",
        default=["targets"],
        help="names (Sketch~Cats: in turn), or of the protocol: targets (default), all, pairs, orders",
    )
    parser.add_argument("--transfer", nargs="*", default=[], help="methods of style transfer, or all")
    parser.add_argument(
        "--weights", default="checkpoints/style_transfer", help="of style transfer: holds {method}"
    )
    parser.add_argument("--transfer-protocol", help="transfer, transfer-published, ... (default: by --data)")
    flags.add_model(parser)
    parser.add_argument(
        "--data",
        type=flags.data_set,
        help="data set: folder {theme}/{object}/{n}.jpg, or mini (default: the model's)",
    )
    parser.add_argument(
        "--protocol", help="canvas, canvas-lite, mini, ..., or a YAML file (default: the model's)"
    )
    parser.add_argument(
        "--flags", default="", help="more for every train.py, such as '--seed 1 --variant published'"
    )
    parser.add_argument(
        "--keep", choices=KEEP, default="all", help="which of the runs' images stay once judged (all)"
    )
    parser.add_argument("--compile", action="store_true", help="the UNet that draws the answer sets")
    parser.add_argument(
        "--attack", default="", metavar="NAME", help="attack the runs, canvas, mini, ..., in place of judging"
    )
    parser.add_argument(
        "--runs-per-job", type=flags.whole(1, 1024), help="of one method, in one process (default: up to 8)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    parser.add_argument(
        "--probe", action="store_true", help="measure a minute of what nothing has finished yet"
    )
    parser.add_argument("--executor", choices=list(jobs.EXECUTORS), default="local")
    parser.add_argument(
        "--workers", type=flags.whole(1, 1024), help="local: jobs at once (default: one a GPU)"
    )
    parser.add_argument("--max-concurrent", type=flags.whole(1), default=8, help="slurm: jobs at once (8)")
    parser.add_argument(
        "--hours",
        type=flags.decimal(0.1, 10_000),
        default=24,
        help="slurm: time limit; goes on in a second job (24)",
    )
    parser.add_argument("--gpus-per-job", type=flags.whole(0, 1024), default=1, help="slurm (1)")
    parser.add_argument("--cpus-per-job", type=flags.whole(1, 1024), default=8, help="slurm (8)")
    parser.add_argument(
        "--sbatch",
        type=key_value,
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="slurm: partition=..., ...",
    )
    return parser


def key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"{text}: expected KEY=VALUE, such as partition=gpu")
    return key, value


def parse(argv=None) -> argparse.Namespace:
    """The flags, or what the model's card says, and `world`, the protocol; raises UserError.

    What the commands of all experiments would refuse is refused before the first one is started.
    """
    args = flag_parser().parse_args(argv)
    args.methods = chosen("--methods", args.methods, UNLEARNING)
    args.transfer = chosen("--transfer", args.transfer, TRANSFERRING)
    args.out, card = Path(args.out), read_card(args.model, args.config)
    args.protocol = args.protocol or card.get("protocol", "canvas")
    args.data = args.data or card.get("data")
    args.world = protocol.load(args.protocol)
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    check_drawn(args.data, args.world)
    if args.attack and attacks.load(args.attack).world.hash != args.world.hash:
        other = f"protocol {attacks.load(args.attack).answers}, not of {args.protocol}"
        raise UserError(f"--attack {args.attack}: has the prompts of {other}; name another")
    if args.transfer_protocol:
        transfer_protocol.load(args.transfer_protocol)
    if not listed(args):
        raise UserError("nothing to do: name --methods and --targets, or --transfer")
    check_trainings(args)
    for method in args.transfer:
        unpainted = Experiment(args.out, TRANSFER, method).missing(args.world)
        if unpainted and not (Path(args.weights) / method).exists():
            raise UserError(f"--weights {args.weights}: no {method} in it; name the folder that holds it")
    return args


def check_trainings(args) -> None:
    """UserError for what train.py of a method would refuse: once for each kind of target."""
    try:
        more = shlex.split(args.flags)
    except ValueError as error:
        raise UserError(f"--flags {args.flags}: {error}; close the quote") from error
    kind = lambda target: canvas.parse_targets(target, "--targets")[0].kind  # noqa: E731
    requests = dict.fromkeys(r for target in chosen_targets(args) for r in target.split(canvas.CHAIN))
    for method in args.methods:
        for _, targets in groupby(sorted(requests, key=kind), kind):
            given = {"target": ",".join(targets), "model": args.model, "config": args.config}
            given |= {"data": args.data, "out": str(args.out)}
            words = [word for key, value in given.items() if value for word in (f"--{key}", value)]
            try:
                train = cli.parse("", str(HERE / "machine_unlearning" / method / "train.py"), words + more)
            except UserError as error:
                raise UserError(f"{method}: {error}") from error
            if own := [key for key, value in given.items() if getattr(train, key) != value]:
                raise UserError(f"--flags {args.flags}: --{own[0]} is for the sweep itself to say")


def chosen(flag: str, names: list[str], known: list[str]) -> list[str]:
    sets = {"all": known, "paper": PAPER} if flag == "--methods" else {"all": known}
    for name in names:
        if name not in (*known, *sets):
            raise UserError(f"{flag} {name}: no such method; {closest(name, known)}")
    return list(dict.fromkeys(method for name in names for method in sets.get(name, [name])))


def chosen_targets(args) -> list[str]:
    p = args.world
    at_once = dict.fromkeys(",".join(sorted(order.split(canvas.CHAIN))) for order in p.orders)
    sets = {"targets": p.targets, "all": p.everything, "pairs": p.pairs, "orders": [*p.orders, *at_once]}
    names = []
    for name in (name for word in args.targets for name in sets.get(word, [word])):
        requests = name.split(canvas.CHAIN)
        check_targets(canvas.parse_targets(",".join(requests), "--targets"), p)
        names += [canvas.CHAIN.join(requests[: count + 1]) for count in range(len(requests))]
    return list(dict.fromkeys(names))


def listed(args) -> list[Experiment]:
    """The base model first, since every score is compared with its own."""
    targets = chosen_targets(args)
    runs = [Experiment(args.out, method, t, args.attack) for method in args.methods for t in targets]
    base = [Experiment(args.out, BASE, "")] if runs and not args.attack else []
    return [*base, *runs, *(Experiment(args.out, TRANSFER, method) for method in args.transfer)]


def executor(args, gpus: list[str]) -> jobs.Local | jobs.Slurm:
    logs = args.out / ".sweep" / jobs.LOGS
    if args.executor == "local":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // args.workers)))
        return jobs.Local(logs, args.workers, gpus)
    gpu = {"gpus_per_node": args.gpus_per_job} if args.gpus_per_job else {}
    return jobs.Slurm(
        logs,
        job_name="sweep",
        time=round(60 * args.hours),
        cpus_per_task=args.cpus_per_job,
        array_parallelism=args.workers,
        **gpu,
        additional_parameters=dict(args.sbatch),
    )


def visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def run(experiments: list[Experiment], args, executor: jobs.Local | jobs.Slurm, running: set[Path]) -> None:
    """Makes what is missing; a UserError at the end if an experiment failed."""
    for experiment in experiments:
        unjudged = "evaluate" in experiment.missing(args.world) and not experiment.judged
        if unjudged and experiment.job_folder not in running:
            for path in (experiment.answers / FID, experiment.answers / SCORES):
                if path.exists():
                    path.unlink()  # of what will be made again
    todo = planned([e for e in experiments if e.job_folder not in running], args)
    by_folder, failed = {experiment.job_folder: experiment for experiment in experiments}, []
    try:
        for folder in jobs.run(todo, executor, running):
            if unfinished := by_folder[folder].missing(args.world):
                log = jobs.latest_job(folder)["log"]
                failed.append(f"{by_folder[folder]}: failed, log {log}{jobs.reason(log, folder)}")
            print(failed[-1] if unfinished else f"{by_folder[folder]}: finished", flush=True)
    except KeyboardInterrupt as stop:
        left = executor.stop([*running, *(folder for job in todo for folder in job.folders)])
        raise type(stop)(f"stopped; {left}. Run the same command again to go on") from stop
    if failed:
        raise UserError("\n  ".join([f"{len(failed)} experiments failed; run this again to retry", *failed]))


@command
def main(argv=None):
    args = parse(argv)
    experiments, gpus = listed(args), visible_gpus() if args.executor == "local" else []
    args.workers = args.workers or (args.max_concurrent if args.executor == "slurm" else max(1, len(gpus)))
    args.runs_per_job = args.runs_per_job or min(8, max(1, len(experiments) // (4 * args.workers)))
    if args.probe:
        probe(experiments, args)
    running = jobs.alive(experiment.job_folder for experiment in experiments)
    about = f"{args.out}: protocol {args.world.name}, model {args.model}"
    costs = Costs(experiments, jobs.read_seconds(args.out / PROBED))
    print(about, *describe(experiments, args.world, costs, running, args.workers), sep="\n", flush=True)
    if args.dry_run:
        return
    made_with = {"protocol": args.world.__dict__ | {"hash": args.world.hash}}
    made_with |= {key: getattr(args, key) for key in ("model", "config", "data", "flags")}
    agree(args.out / ".sweep", made_with, "a sweep")
    with alone(args.out / ".sweep", who="sweep"):
        run(experiments, args, executor(args, gpus), running)


if __name__ == "__main__":
    main()
