"""Tunes methods' settings, with a budget that is the same for every method

    python -m scripts.tune esd uce --model checkpoints/mini-second --out runs/tune
    python -m scripts.tune --out runs/tune                    # the table of what is there

Trial 0 has the settings of `config.yaml` and is asked to forget all --styles and --objects. The others take
values of its section `tune`, in a random order that never changes (random search: Bergstra & Bengio, JMLR
2012), and forget the first style and object; of those that forget it no less than trial 0 does, the best
--finalists forget the others, too. Styles and objects are tuned apart, by

    objective = (UA + IRA + CRA) / 3

A kind has no other trials where its own settings leave less than --least points to gain on a target: nothing
could be taken over. The table has the best mean over all targets of settings that forget no less on any than
the method's own, and their `least gain`: that on the target where they gain least. Where it is below --least,
another target might decide otherwise, and nothing is to be taken over.
The model is another than the one that tables show, and so are the seeds of the images (protocol mini-tuning).
OUT/METHOD.csv has a row a run. The command, repeated, goes on, also with more --trials; of several at once,
each takes other methods.
"""

import argparse
import math
import random
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.card import read_card
from evaluation import canvas, protocol
from evaluation.core import flags
from evaluation.core.errors import CODES, UserError, closest, command, refused
from evaluation.core.files import atomic, read_json
from evaluation.core.owner import alone
from evaluation.core.record import RECORD, read_record
from evaluation.reporting.formats import markdown
from machine_unlearning.core import cli

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
SHOWN = (CHECKPOINTS / "mini", CHECKPOINTS / "mini-near")  # in tables, so never tuned on
FIGURES = ("UA", "IRA", "CRA")
SECOND = "checkpoints/mini-second"
METHODS = sorted(path.parent.name for path in cli.METHODS.glob("*/train.py"))


class Run(NamedTuple):
    folder: Path
    kind: str
    number: int  # of the trial
    overrides: dict
    target: str

    @property
    def scores(self) -> Path:
        return self.folder / "answers/accuracy.json"


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m scripts.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="of machine unlearning")
    flags.add_model(parser)
    parser.set_defaults(model=SECOND)
    parser.add_argument("--out", type=flags.new_folder, default="runs/tune", help="(runs/tune)")
    parser.add_argument("--trials", type=flags.whole(1), default=6, help="settings tried of a kind (6)")
    parser.add_argument("--finalists", type=flags.whole(1), default=2, help="that forget all targets (2)")
    parser.add_argument("--least", type=flags.decimal(0, 100), default=2, help="points to gain (2)")
    parser.add_argument("--styles", nargs="+", default=["Watercolor", "Rust"], help="(Watercolor Rust)")
    parser.add_argument("--objects", nargs="+", default=["Cats", "Towers"], help="(Cats Towers)")
    parser.add_argument("--protocol", default="mini-tuning", help="of the images judged (mini-tuning)")
    parser.add_argument("--data", type=flags.data_set, help="data set (the model's)")
    args = parser.parse_args(argv)
    for method in args.methods:
        if method not in METHODS:
            raise UserError(f"{method}: no such method; {closest(method, METHODS)}")
    for flag, kind in (("styles", "style"), ("objects", "object")):
        names = getattr(args, flag)
        for target in canvas.parse_targets(",".join(names), f"--{flag}"):
            if target.kind != kind:
                raise UserError(f"--{flag} {target}: not a{'n' * (kind == 'object')} {kind}")
    if args.methods and Path(args.model).resolve() in SHOWN:
        raise UserError(
            f"--model {args.model}: tables show it, so nothing is tuned on it; name another training"
        )
    if args.methods and args.model == SECOND and not Path(SECOND).exists():
        make = f"`bash scripts/make_mini.sh {SECOND} --seed 1` trains it in under three hours"
        raise UserError(f"--model {SECOND}: not there yet; {make}, or name another training of the miniature")
    return args


def draw(grid: dict[str, list], own: dict, count: int) -> list[dict]:
    """The overrides of `count` trials, or of as many as there are: none, then values of the grid, of which
    one at least is not the method's own."""
    combinations = [dict(zip(grid, values)) for values in product(*grid.values())]
    others = [some for some in combinations if any(own[key] != value for key, value in some.items())]
    random.Random(0).shuffle(others)
    return [{}, *others[: count - 1]]


def settled(method: str, target: str, overrides: dict, args, out: Path) -> dict:
    """The settings of a trial; UserError, before anything is trained, if the method refuses them."""
    words = ["--target", target, "--out", str(out), *model_flags(args), *as_words(overrides)]
    return OmegaConf.to_container(cli.parse(None, str(cli.METHODS / method / "train.py"), words).settings)


def as_words(overrides: dict) -> list[str]:
    return [f"{key}={value}" for key, value in overrides.items()]


def model_flags(args) -> list[str]:
    config = ["--config", args.config] if args.config else []
    return ["--model", args.model, *config, *(["--data", args.data] if args.data else [])]


def planned(method: str, kind: str, targets: list[str], args) -> list[list[Run]]:
    """Target -> trial -> its run. Raises UserError for a grid that the method does not know."""
    config = cli.METHODS / method / "config.yaml"
    grid = OmegaConf.to_container(OmegaConf.load(config)).get("tune")
    if not grid or not isinstance(grid, dict):
        raise UserError(
            f"{config}: has no section tune; write below it what to try, as in  lr: [1.0e-4, 1.0e-3]"
        )
    own = settled(method, targets[0], {}, args, Path(args.out))
    for key, values in grid.items():
        if key not in own or not values or not isinstance(values, list):
            raise UserError(f"{config}: tune: {key}: expected a setting of the method and a list of values")
    trials, runs = draw(grid, own, args.trials), []
    for target in targets:
        folders = [Path(args.out, f"{method}-{number}", target) for number in range(len(trials))]
        runs.append([Run(folders[n], kind, n, overrides, target) for n, overrides in enumerate(trials)])
        for run in runs[-1]:
            settings = settled(method, target, run.overrides, args, run.folder)
            if (run.folder / RECORD).exists() and read_record(run.folder)["settings"] != settings:
                raise UserError(
                    f"{run.folder}: was made with other settings; remove it or name another --out"
                )
    return runs


def call(module: str, words: list[str]) -> int:
    """Runs a command, which tells of errors and progress alone; what stops it stops this one, too."""
    code = subprocess.run([sys.executable, "-m", module, *words], stdout=subprocess.DEVNULL).returncode
    if code in CODES.values():
        sys.exit(code)
    return code


def make(method: str, runs: list[Run], args) -> None:
    """Trains what is missing, and judges it. A trial may fail, if it is not the method's own settings."""
    for run in runs:
        words = ["--target", run.target, *model_flags(args), "--out", str(run.folder)]
        if (run.folder / RECORD).exists():
            continue
        if call(f"machine_unlearning.{method}.train", [*words, *as_words(run.overrides)]):
            if not run.overrides:
                raise UserError(f"{run.folder}: {method} failed with its own settings; its message is above")
            print(f"{run.folder}: failed; its message is above", file=sys.stderr)
    unjudged = [run for run in runs if (run.folder / RECORD).exists() and not run.scores.exists()]
    if unjudged:
        words = ["--base", str(Path(args.out, "base/answers")), "--protocol", args.protocol, "--keep", "none"]
        words += [*model_flags(args), "--runs", *(str(run.folder) for run in unjudged)]
        if code := call("machine_unlearning.evaluate", words):
            sys.exit(code)


def figures(run: Run) -> list[float]:
    """UA, IRA and CRA of a run that was judged."""
    table = read_json(run.scores, targets=dict)["targets"][run.target]
    return [table[name]["value"] for name in FIGURES]


def objective(run: Run) -> float:
    return float(np.mean(figures(run)))


def forgotten(run: Run) -> float:
    return figures(run)[0]


def row(method: str, run: Run) -> dict:
    """What the table of trials says of a run; of one that failed, no figures."""
    about = {"method": method, "kind": run.kind, "trial": run.number, "target": run.target}
    about["settings"] = " ".join(as_words(run.overrides))
    if not run.scores.exists():
        return about | dict.fromkeys([*FIGURES, "objective", "seconds"], math.nan)
    seconds = sum(read_record(run.folder)["seconds"].values())
    return about | dict(zip(FIGURES, figures(run))) | {"objective": objective(run), "seconds": seconds}


def tune(method: str, args) -> None:
    """All runs of a method; writes its table."""
    kinds = [planned(method, "style", args.styles, args), planned(method, "object", args.objects, args)]
    runs = [own for targets in kinds for own, *_ in targets]
    make(method, runs, args)
    most = 1 - args.least / 100  # whoever has more cannot gain enough
    kinds = [targets for targets in kinds if all(objective(own) <= most for own, *_ in targets)]
    firsts = [run for targets in kinds for run in targets[0][1:]]
    make(method, firsts, args)
    finals = []
    for first, *others in kinds:
        rivals = [run for run in first if run.scores.exists() and forgotten(run) >= forgotten(first[0])]
        best = {run.number for run in sorted(rivals, key=objective, reverse=True)[: args.finalists]}
        finals += [trials[number] for trials in others for number in sorted(best - {0})]
    make(method, finals, args)
    table = pd.DataFrame([row(method, run) for run in [*runs, *firsts, *finals]]).round(4)
    with atomic(Path(args.out, f"{method}.csv")) as file:
        table.to_csv(file, index=False)


def summary(trials: pd.DataFrame) -> list[dict]:
    """A row for every method and kind: the best of those that were asked to forget all targets and forget
    no less on any than trial 0."""
    rows = []
    for (method, kind), group in trials.groupby(["method", "kind"]):
        table = group.pivot(index="trial", columns="target", values=["objective", "UA"])
        final = table.dropna()
        final = final[(final.UA.loc[0] <= final.UA).all(axis=1)].objective
        means, gains = 100 * final.mean(axis=1), 100 * (final - final.loc[0]).min(axis=1)
        best = int(means.idxmax())
        settings = group.set_index("trial").settings[[best]].iloc[0]
        rows.append(
            {"method": method, "kind": kind, "trials": str(len(table)), "runs": str(len(group))}
            | {"before": f"{means[0]:.1f}", "best": f"{means[best]:.1f}", "settings": settings or "-"}
            | {"least gain": f"{gains[best]:.1f}", "seconds": f"{group.seconds.sum():.0f}"}
        )
    return rows


@command
def main(argv=None):
    args = parse(argv)
    if args.methods:
        card = read_card(args.model, args.config)
        args.data = args.data or card.get("data")
        protocol.load(args.protocol)
    for method in args.methods:
        with alone(Path(args.out, f".{method}")):
            tune(method, args)
    files = [Path(args.out, f"{method}.csv") for method in args.methods] or sorted(
        Path(args.out).glob("*.csv")
    )
    if not files:
        raise UserError(f"--out {args.out}: holds no trials; name methods to tune")
    rows = []
    for file in files:
        with refused(f"{file}: not a table of trials; remove it", LookupError, ValueError, TypeError):
            rows += summary(pd.read_csv(file, dtype={"settings": str}).fillna({"settings": ""}))
    print(markdown(rows, list(rows[0])))


if __name__ == "__main__":
    main()
