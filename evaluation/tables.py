"""Tables: every method, the base model, and the published numbers beside them

A figure is computed for every target; a cell is the unweighted mean over targets and its standard deviation,
in percent. Numbers of different protocols or base models are put side by side only if asked for, and marked;
runs of other settings or training seeds have rows of their own.
csv and json also hold medians, bootstrap intervals (`metrics.bootstrap`) and differences to the paper.

    python -m evaluation.tables runs [--per-target] [--statistics] [--format markdown|latex|csv|json]
    python -m evaluation.tables runs --sequential [--per-target]   # requests in turn; after each
    python -m evaluation.tables runs --adversarial [--per-target]  # before and after adversarial prompts
    python -m evaluation.tables runs --probe completion [--per-target]  # and under a probe
    python -m evaluation.tables runs --probe all            # what every attack and probe brought back
    python -m evaluation.tables runs --side-effects [--per-target]  # on neighbours and on its images
    python -m evaluation.tables runs --method esd           # its figures with intervals and worst targets
    python -m evaluation.tables runs --compare esd uce      # their differences, target by target
    python -m evaluation.tables runs --explain esd/Sketch/UA   # the images behind a figure
"""

import argparse
import json
import sys
from itertools import chain
from pathlib import Path

from evaluation.core.errors import UserError, closest, command, early
from evaluation.metrics.bootstrap import LEVEL
from evaluation.probes import KINDS

ALL = "all"
FORMATS = ("markdown", "latex", "csv", "json")


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.tables", description="Tables of a folder of runs.")
    root = "folder with METHOD/TARGET runs and base/"
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help=root)
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--per-target", action="store_true", help="one row for every method and target")
    what.add_argument("--method", help="one row for every figure of this method, with its worst targets")
    what.add_argument("--explain", metavar="METHOD/TARGET/METRIC", help="the images behind a figure")
    what.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two methods' paired differences, A - B")
    in_turn = "runs that went on from others: SU, SR; with --per-target after every request"
    setting = parser.add_mutually_exclusive_group()
    setting.add_argument("--sequential", action="store_true", help=in_turn)
    found = "UA before and after the attack of machine_unlearning.attack"
    setting.add_argument("--adversarial", action="store_true", help=found)
    probed = "UA under a probe of machine_unlearning.probe; all: what each of them brought back"
    setting.add_argument("--probe", choices=[*KINDS, ALL], help=probed)
    effects = "accuracy lost by a target's nearest classes and by the rest, and what its images became"
    setting.add_argument("--side-effects", action="store_true", help=effects)
    statistics = f"{LEVEL} %% intervals in place of standard deviations, and differences to the paper"
    parser.add_argument("--statistics", action="store_true", help=statistics)
    mixed = "allow, and mark, different protocols or models"
    parser.add_argument("--any-protocol", action="store_true", help=mixed)
    args = parser.parse_args(argv)
    if args.explain and args.explain.count("/") != 2:
        raise UserError(f"--explain {args.explain}: expected METHOD/TARGET/METRIC, such as esd/Sketch/UA")
    for flag in ("sequential", "adversarial", "probe", "side-effects"):
        if getattr(args, flag.replace("-", "_")) and (args.method or args.explain or args.compare):
            raise UserError(f"--{flag}: a table of its own; leave out --method, --explain and --compare")
    if args.probe == ALL and (args.per_target or args.statistics):
        raise UserError(f"--probe {ALL}: a summary; leave out --per-target and --statistics, or name a probe")
    return args


early(__name__, parse)

from evaluation.reporting import adversarial, probes, rows, side_effects
from evaluation.reporting.collect import BASE, Result, collect, read_all, without_chains
from evaluation.reporting.explain import explain
from evaluation.reporting.formats import columns, latex, markdown, plain, present, print_csv, printed
from evaluation.reporting.remarks import PAIRED, STATISTICS, remarks, sequence_remarks
from evaluation.reporting.sequences import sequence_rows, triangle_rows

Table = tuple[list[dict], list[str]]  # rows and the names of their columns


def explained(path: str, results: list[Result]) -> tuple[list[dict], list[str]]:
    """-> rows and remarks for METHOD/TARGET/METRIC."""
    method, target, figure = path.split("/")
    runs = {result.name: result for result in rows.find(method, results, "--explain")}
    if target not in runs:
        raise UserError(f"--explain {path}: {method} has no target {target!r}; {closest(target, runs)}")
    lines, total = explain(runs[target], figure)
    where = f"Images: {runs[target].path}/answers; base model: the same name in {BASE}/answers."
    return lines, [total, where]


def sequential(args, results: list[Result], idle: list[Path]) -> tuple[list[Table], list[str]]:
    made, names = triangle_rows(results) if args.per_target else sequence_rows(results)
    if not made:
        what = "no judged run went on from another; make some: bash scripts/sequence.sh METHOD T1 T2 ..."
        raise UserError(f"--sequential: {what}")
    below = [STATISTICS] * args.statistics + sequence_remarks(results, idle, made)
    statistics = args.format in ("csv", "json")
    if args.statistics and not statistics:
        made = rows.with_differences(made)
    return [(made, present(names, made, statistics))], below


def asked(args) -> tuple[list[Table], list[str]]:
    """Tables of attacks or of a probe."""
    if args.adversarial:
        results, idle = adversarial.collect_attacks(args.roots, args.any_protocol)
        kind, command = "attacks", "attack"
        make = adversarial.attack_target_rows if args.per_target else adversarial.attack_rows
    else:
        results, idle = probes.collect_probes(args.roots, args.probe, args.any_protocol)
        kind, command = "such probes", f"probe {args.probe}"
        make = probes.probe_target_rows if args.per_target else probes.probe_rows
    if not results:
        where = ", ".join(map(str, args.roots))
        raise UserError(
            f"{where}: no {kind}; make them with python -m machine_unlearning.{command} --runs RUN..."
        )
    parts = [make(part) for part in rows.by_setting(results)]
    together, below = list(chain(*parts)), [STATISTICS] * args.statistics
    if args.adversarial:
        names = adversarial.attack_columns()
        below += adversarial.attack_remarks(results, idle, together)
    else:
        names = probes.probe_columns(results)
        below += probes.probe_remarks(args.probe, results, idle)
    return in_parts(args, parts, names), below


def effects(args, results: list[Result], idle: list[Path]) -> tuple[list[Table], list[str]]:
    if not (shown := side_effects.compared(results)):
        what = "no judged run that started from the base model and forgot a style or an object"
        raise UserError(f"--side-effects: {what}; pairs have SC, OC and UP, see the main table")
    make = side_effects.effect_target_rows if args.per_target else side_effects.effect_rows
    parts = [make(part) for part in rows.by_setting(shown)]
    below = [STATISTICS] * args.statistics + side_effects.effect_remarks(results, idle, shown)
    return in_parts(args, parts, side_effects.effect_columns()), below


def in_parts(args, parts: list[list[dict]], names: list[str]) -> list[Table]:
    """A table of every part, or a single one with statistics for csv and json."""
    if args.format in ("csv", "json"):
        together = list(chain(*parts))
        return [(together, present(names, together, True))]
    parts = [rows.with_differences(part) if args.statistics else part for part in parts]
    return [(part, present(names, part, False)) for part in parts]


def summary(args) -> tuple[list[Table], list[str]]:
    """One table, of what all attacks and probes brought back."""
    every = probes.collect_all(args.roots, args.any_protocol)
    if not every:
        command = "python -m machine_unlearning.probe NAME --runs RUN..."
        raise UserError(f"{', '.join(map(str, args.roots))}: no probes; make them with {command}")
    made, statistics = probes.summary_rows(every), args.format in ("csv", "json")
    return [(made, present(probes.summary_columns(every), made, statistics))], probes.summary_remarks(every)


def tables(args) -> tuple[list[Table], list[str]]:
    """-> tables, a single one for csv, and remarks."""
    if args.probe == ALL:
        return summary(args)
    if args.adversarial or args.probe:
        return asked(args)
    results, idle = collect(args.roots, args.any_protocol)
    if args.explain:  # the predictions of one run are enough
        lines, below = explained(args.explain, results)
        return [(lines, list(lines[0]))], below
    read_all(results)
    if args.sequential:
        return sequential(args, results, idle)
    if args.side_effects:
        return effects(args, results, idle)
    main = without_chains(results)
    if args.method or args.compare:
        make, what = (rows.method_rows, args.method) if args.method else (rows.paired_rows, args.compare)
        made = make(what, main)
        return [(made, list(dict.fromkeys(chain(*made))))], [PAIRED] * bool(args.compare)
    make = rows.target_rows if args.per_target else rows.main_rows
    parts = [make(part) for part in rows.by_setting(main)]
    together = list(chain(*parts))
    below = [STATISTICS] * args.statistics + remarks(results, idle, together)
    if args.format in ("csv", "json"):
        return [(together, columns(together))], below
    parts = [rows.with_differences(part) if args.statistics else part for part in parts]
    return [(part, printed(part)) for part in parts], below


@command
def main(argv=None):
    args = parse(argv)
    made, below = tables(args)
    below = [plain(line) for line in below]
    if args.format == "json":
        print(json.dumps({"rows": [row for part, _ in made for row in part], "notes": below}, indent=1))
    elif args.format == "csv":
        for part, names in made:
            print_csv(part, names)
        print(*below, sep="\n", file=sys.stderr)
    elif args.format == "latex":
        print(*(latex(*part, args.statistics) for part in made), *(f"% {line}" for line in below), sep="\n")
    else:
        drawn = [markdown(*part, args.statistics) for part in made] or ["No judged runs."]
        print("\n\n".join(drawn), "", *below, sep="\n")


if __name__ == "__main__":
    main()
