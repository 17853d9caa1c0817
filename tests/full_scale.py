"""A finished table at the size of the paper, made up, and what it costs to read it

    python -m tests.full_scale FOLDER            # writes the runs (minutes, 250 MB), then times every command
    python -m tests.full_scale FOLDER --methods 2 --targets 6

Predictions are random. Images are not written: every answer set has the sprite that its gallery would keep,
of pictures drawn by the miniature's code.
"""

import argparse
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from evaluation import canvas
from evaluation import protocol as protocols
from evaluation.answers.answer_set import AnswerSet, grid
from evaluation.answers.predictions import PREDICTIONS, Prediction
from evaluation.core.files import write_json
from evaluation.core.record import write_record
from evaluation.drawing import gallery
from evaluation.metrics.distances import FID
from evaluation.mini import dataset
from evaluation.reporting.collect import collect

METHODS = "esd uce ca fmn salun seot spm ediff shs sa".split()
MODEL = "0123456789abcdef"
COMMANDS = {
    "tables": ["evaluation.tables"],
    "tables --per-target": ["evaluation.tables", "--per-target"],
    "tables --statistics": ["evaluation.tables", "--statistics"],
    "tables --side-effects": ["evaluation.tables", "--side-effects"],
    "tables --compare esd uce": ["evaluation.tables", "--compare", "esd", "uce"],
    "tables --explain esd/Van_Gogh/IRA": ["evaluation.tables", "--explain", "esd/Van_Gogh/IRA"],
    "figures": ["evaluation.figures", "--out"],
    "report": ["evaluation.report", "--out"],
}


def write_answers(
    folder: Path, protocol, run: dict | None, forgotten: canvas.Target | None, seed: int
) -> None:
    """Random answers: 3 % of labels wrong, 90 % of what shows the target, a tenth of two neighbours of it."""
    AnswerSet(folder, protocol, MODEL, run)
    rng, cells = np.random.default_rng(seed), grid(protocol)
    columns = {
        name: np.array([cell[i] for cell in cells]) for i, name in enumerate(("theme", "object", "seed"))
    }
    shown = np.array([bool(forgotten) and forgotten.covers(cell.theme, cell.object) for cell in cells])
    for domain, names in (("theme", protocol.themes), ("object", protocol.objects)):
        own = shown & bool(forgotten and (forgotten.style if domain == "theme" else forgotten.object))
        near = np.isin(columns[domain], rng.choice(names, 2))
        wrong = rng.random(len(cells)) < np.select([own, near], [0.9, 0.1], 0.03)
        columns[f"{domain}_seen"] = np.where(wrong, rng.choice(names, len(cells)), columns[domain])
        columns[f"{domain}_prob"] = rng.random(len(cells)).round(6)
        columns[f"{domain}_seen_prob"] = rng.random(len(cells)).round(6)
    columns["sha256"] = [f"{number:016x}" for number in rng.integers(2**62, size=len(cells))]
    text = io.BytesIO()
    source = {"protocol": {"name": protocol.name, "hash": protocol.hash}, "model": MODEL, "run": run}
    source |= {"style_classifier": "a" * 16, "object_classifier": "b" * 16}
    text.write(f"# {json.dumps(source)}\n".encode())
    table = pa.table({name: columns[name] for name in Prediction._fields})
    arrow_csv.write_csv(table, text, arrow_csv.WriteOptions(quoting_style="none", quoting_header="none"))
    (folder / PREDICTIONS).write_bytes(gzip.compress(text.getvalue(), 1, mtime=0))


def write(root: Path, methods: list[str], targets: list[str]) -> None:
    protocol = protocols.load("canvas")
    write_answers(root / "base" / "answers", protocol, None, None, 0)
    for i, method in enumerate(methods):
        for k, name in enumerate(targets):
            (target,) = canvas.parse_targets(name)
            record = {
                "method": method, "target": name, "variant": "canvas", "settings": {"lr": 1e-5}, "seed": 0,
                "data": "DATA", "from": None, "model": MODEL, "model_path": "SD",
                "seconds": {"setup": 1.0, "unlearn": 100.0 * (i + 1) + k}, "peak_memory_bytes": 10**10 + i,
                "stored_bytes": 10**8 + i,
            }  # fmt: skip
            write_record(root / method / name, record)
            write_answers(root / method / name / "answers", protocol, record, target, 1000 * i + k + 1)
    results, _ = collect([root])
    for result in results:
        reference = {"extractor": "inception", "weights": ["c" * 16], "data": "DATA", "data_digest": "d" * 16}
        origin = reference | {"protocol": protocol.hash, "images": result.predictions.images}
        values = {
            target: {"fid": 20.0 + len(target), "kid": 0.01, "kid_std": 0.001} for target in ("", *targets)
        }
        content = {"origin": origin, "values": values, "made_with": {}}
        write_json(result.answers.folder / FID, content)


def write_sprites(root: Path) -> None:
    """Pictures of the miniature stand for the answers."""
    rng = np.random.default_rng(0)
    pictures = [dataset.image(t, o, n) for t in dataset.THEMES for o in dataset.OBJECTS for n in range(1, 6)]
    for sheet in gallery.sheets(collect([root])[0]):
        chosen = [pictures[number] for number in rng.integers(len(pictures), size=len(sheet.places))]
        sheet.path.write_bytes(gallery.drawn(chosen, sheet))


def measure(root: Path, name: str) -> tuple[float, float]:
    """-> seconds and megabytes of one command in a process of its own."""
    module, *flags = COMMANDS[name]
    out = [str(root / ".out")] if flags[-1:] == ["--out"] else []
    began = time.perf_counter()
    code = (
        "import re, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, module, str(root), *flags, *out]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stderr.split()[-1]) / 1000


def opened(page: Path) -> float | None:
    """Seconds until headless Chromium has loaded the page and laid it out; None without Chromium."""
    if not shutil.which("chromium"):
        return None
    script = """<script>addEventListener("load", () => { document.body.offsetHeight;
        document.documentElement.innerHTML = "<body>loaded " + performance.now() + "</body>"; });</script>"""
    timed = page.with_name("timed.html")
    timed.write_text(page.read_text().replace("</body>", script + "</body>"))
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking --dump-dom".split()
    words = ["chromium", *options, f"--user-data-dir={page.parent}/profile", timed.absolute().as_uri()]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"loaded ([\d.]+)", shown)[1]) / 1000


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--targets", type=int, default=70)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, help="time these commands alone")
    args = parser.parse_args(argv)
    everything = [*canvas.STYLES, *canvas.OBJECTS]
    targets = everything[-args.targets :] if args.targets < 70 else everything
    if not args.folder.exists():
        write(args.folder, METHODS[: args.methods], targets)
        write_sprites(args.folder)
    for name in args.only or COMMANDS:
        seconds, megabytes = measure(args.folder, name)
        print(f"{name:36}{seconds:8.1f} s{megabytes:8.0f} MB", flush=True)
    report = args.folder / ".out" / "report.html"
    if report.exists():
        print(f"{report}: {report.stat().st_size / 1e6:.1f} MB")
        if seconds := opened(report):
            print(f"opens in {seconds:.1f} s (headless Chromium)")


if __name__ == "__main__":
    main()
