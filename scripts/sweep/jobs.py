"""Commands as jobs, each in a fresh process: on this machine or on a SLURM cluster, through submitit.

    Job([Step("train", "machine_unlearning.uce.train", ["--target", "Sketch", ...], {folder: ""})], [folder])

A job is judged by the files its commands leave. It is at work while `squeue` or the process table lists it:
SLURM's accounting, which submitit asks, may be switched off, and does not know of jobs that were killed.
"""

import contextlib
import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import psutil
from submitit import LocalExecutor, SlurmExecutor
from submitit.helpers import DelayedSubmission

from evaluation.core.errors import UserError
from evaluation.core.files import read_json, write_json

JOB, SECONDS, LOGS = "job.json", "seconds.json", "logs"
STOPPING = (signal.SIGINT, signal.SIGTERM)
REFUSED = 2  # how commands end that told why
MARK = "--"  # begins the line of a log that names the experiments whose step begins
A_YEAR = 365 * 24 * 60  # minutes: jobs on this machine have no time limit
AT_ONCE = 1000  # clusters limit the size of an array, usually to 1001


class Step(NamedTuple):
    """A command: the main of a module and its arguments."""

    stage: str
    module: str
    arguments: list[str]
    # job folders of the experiments that it makes -> what stands for them behind --runs, if anything; without
    # any it is for all of the job
    runs: dict[Path, str] = {}  # noqa: RUF012


class Job:
    """Steps that run one after another in one process; each skips what is done.

    `folders` are those of its experiments' jobs: who works on them (`job.json`) and what each stage took
    (`seconds.json`). An experiment whose step fails is left out of later steps. `clear`: claims in these
    folders are of an attempt that is over. SLURM may requeue a job on another machine, where its own claims
    would be waited for in vain.
    """

    def __init__(self, steps: list[Step], folders: list[Path], clear: list[Path] = ()):
        self.steps, self.folders, self.clear, self.gpu = steps, folders, clear, None

    def __call__(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu  # before torch is imported, by the first command
        for claim in (claim for folder in self.clear for claim in folder.glob(".claim-*")):
            claim.unlink(missing_ok=True)
        failed = {}
        for step in self.steps:
            runs = {folder: run for folder, run in step.runs.items() if folder not in failed}
            if step.runs and not runs:
                continue
            try:
                self.take(step, runs)
            except (Exception, SystemExit) as error:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                elif error.code != REFUSED:  # stopped, or submitit's own
                    raise
                failed |= runs or dict.fromkeys(self.folders)
        if failed:
            raise SystemExit(REFUSED)

    def take(self, step: Step, runs: dict[Path, str]) -> None:
        """Makes a step for some of its experiments, and notes in their folders the seconds it took."""
        print(MARK, *(runs or self.folders), file=sys.stderr, flush=True)
        named = [run for run in runs.values() if run]
        began = time.perf_counter()
        importlib.import_module(step.module).main(step.arguments + (["--runs", *named] if named else []))
        took = round((time.perf_counter() - began) / max(1, len(runs)), 3)
        for folder in runs:
            write_json(folder / SECONDS, read_seconds(folder / SECONDS) | {step.stage: took})

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on USR2, before time is up or the job is preempted: the same again, later."""
        return DelayedSubmission(self)


class Local:
    """Jobs on this machine, one at a time in each of `workers` slots, which share the GPUs in turn."""

    name, capacity, pause = "local", 1, 0.5

    def __init__(self, logs: Path, workers: int, gpus: list[str]):
        self.slots = workers
        self.gpus, self.submitit = gpus, LocalExecutor(logs)
        self.submitit.update_parameters(timeout_min=A_YEAR)

    def submit(self, jobs: list[Job], slot: int) -> list[str]:
        for job in jobs:
            job.gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        return [self.submitit.submit(job).job_id for job in jobs]

    @staticmethod
    def alive(ids: set[str]) -> set[str]:
        return {pid for pid in ids if Local._process(pid)}

    @staticmethod
    def _process(pid: str) -> psutil.Process | None:
        """Of a living job: its number may have passed to another process since."""
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(int(pid))
            if process.status() != psutil.STATUS_ZOMBIE and "submitit" in " ".join(process.cmdline()):
                return process
        return None

    @staticmethod
    def stop(folders: list[Path]) -> str:
        """Ends their jobs as Ctrl-C would, and tells the user of them."""
        jobs = [Local._process(job["id"]) for job in map(latest_job, folders) if job]
        at_work = []
        for job in filter(None, jobs):
            with contextlib.suppress(psutil.Error):
                at_work += job.children(recursive=True)
        for process in at_work:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
        for process in psutil.wait_procs(at_work, 1.5)[1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return "so are its jobs on this machine"


class Slurm:
    """Jobs of a SLURM cluster, in arrays. `parameters` are submitit's: time (minutes), partition, ..."""

    name, slots, capacity, pause = "slurm", 1, 10**9, 10.0

    def __init__(self, logs: Path, **parameters):
        try:
            self.submitit = SlurmExecutor(logs, max_num_timeout=10)
        except RuntimeError as error:
            raise UserError(
                "--executor slurm: no srun here; run this on a login node of the cluster"
            ) from error
        self.submitit.update_parameters(**parameters)

    def submit(self, jobs: list[Job], slot: int) -> list[str]:
        parts = [jobs[start : start + AT_ONCE] for start in range(0, len(jobs), AT_ONCE)]
        return [submitted.job_id for part in parts for submitted in self.submitit.submit_array(part)]

    @staticmethod
    def stop(folders: list[Path]) -> str:
        """Leaves them to the cluster, and tells the user so."""
        return "what was submitted to SLURM goes on"

    @staticmethod
    def alive(ids: set[str]) -> set[str]:
        """All of them while the controller does not answer."""
        listing = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i"], capture_output=True, text=True)
        return ids & set(listing.stdout.split()) if listing.returncode == 0 else ids


EXECUTORS = {executor.name: executor for executor in (Local, Slurm)}


def read_note(path: Path, **kinds) -> dict:
    """What a file notes; {} if there is none, or, after a line that says so, if it is damaged."""
    try:
        return read_json(path, **kinds) if path.exists() else {}
    except UserError as error:
        say(f"note: {error}")
        return {}


@functools.cache
def say(text: str) -> None:
    """Once, however often a file is read."""
    print(text, file=sys.stderr, flush=True)


def read_seconds(path: Path) -> dict[str, float]:
    """What a file of seconds notes, by stage."""
    return {key: value for key, value in read_note(path).items() if type(value) in (int, float)}


def latest_job(folder: Path) -> dict:
    """What `job.json` says of the folder's latest job: executor, id, slot, log; {} if there was none."""
    return read_note(folder / JOB, executor=str, id=str, slot=int, log=str)


def reason(log: str, folder: Path) -> str:
    """What a failed job said last of an experiment, to be added to the name of its log; nothing if it was
    killed."""
    lines, own = [], True
    for line in Path(log).read_text(errors="replace").splitlines() if Path(log).exists() else []:
        own = str(folder) in line.split() if line.startswith(f"{MARK} ") else own
        lines += [line] * own
    told = [line for line in lines if re.match(r"(\S+ )?error: |\w*(Error|Exception): ", line)]
    return f" ({told[-1].rpartition('error: ')[2]})" if told else ""


def alive(folders) -> set[Path]:
    """Those whose latest job, of this or an earlier sweep, still waits or runs."""
    jobs = {folder: job for folder in folders if (job := latest_job(folder))}
    living = set()
    for name, executor in EXECUTORS.items():
        if ids := {job["id"] for job in jobs.values() if job["executor"] == name}:
            living |= {(name, number) for number in executor.alive(ids)}
    return {folder for folder, job in jobs.items() if (job["executor"], job["id"]) in living}


def submit(batch: list[Job], executor: Local | Slurm, slot: int) -> set[Path]:
    """Submits jobs, and notes each in its folder -> the folders."""
    # whoever stops the sweep meanwhile finds all that was submitted; and what waits for a job on this
    # machine, a child that inherits this, leaves Ctrl-C to the job
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        for job, number in zip(batch, executor.submit(batch, slot), strict=True):
            log = str(executor.submitit.folder / f"{number}_0_log.err")
            note = {"executor": executor.name, "id": number, "slot": slot, "log": log}
            for folder in job.folders:
                write_json(folder / JOB, note)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    return {folder for job in batch for folder in job.folders}


def run(jobs: list[Job], executor: Local | Slurm, running: set[Path]):
    """Runs the jobs and waits for the `running` ones too; yields the folders of each when it has ended."""
    waiting, running = list(jobs), set(running)
    while waiting or running:
        for slot in range(executor.slots):
            at_work = [latest_job(folder) for folder in running]
            here = (job for job in at_work if (job["executor"], job["slot"]) == (executor.name, slot))
            busy = len({job["id"] for job in here})
            batch = waiting[: max(0, executor.capacity - busy)]
            del waiting[: len(batch)]
            if batch:
                running |= submit(batch, executor, slot)
        time.sleep(executor.pause)
        for folder in sorted(running - alive(running)):
            running.remove(folder)
            yield folder


def extrapolate(module: str, arguments: list[str], progress, total: int, limit: float = 60) -> float | None:
    """Seconds that a command would take, from `limit` seconds of its work; None if it got nowhere.

    `progress()` counts what it has done of `total`. Loading the model may take four times `limit` more. It is
    stopped as by Ctrl-C.
    """
    began, start, marks = time.monotonic(), progress(), []  # marks: (seconds, count) whenever more is done
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-m", module, *arguments], **quiet) as process:
        while process.poll() is None and time.monotonic() - began < limit + (
            marks[0][0] if marks else 4 * limit
        ):
            time.sleep(0.1)
            if (count := progress() - start) > (marks[-1][1] if marks else 0):
                marks.append((time.monotonic() - began, count))
        if process.poll() is not None:
            return time.monotonic() - began if process.returncode == 0 and not start else None
        process.send_signal(signal.SIGINT)
    if len(marks) < 2:
        return None
    (first, few), (then, more) = marks[0], marks[-1]
    return first + (total - few) * (then - first) / (more - few)
