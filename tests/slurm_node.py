"""A SLURM cluster of this one machine: controller, node and munge, without systemd or cgroups."""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "squeue", "sbatch")
CONF = """
ClusterName=one
SlurmctldHost={host}
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmUser=root
ReturnToService=2
KillWait=2
NodeName={host} CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
OWN = ("/etc/munge", "/var/lib/munge", "/run/munge", "/var/log/munge")  # must be munge's
PIDS = ("/run/slurmd.pid", "/run/slurmctld.pid", "/run/munge/munged.pid")


def why_not() -> str | None:
    """Why there can be no node here, or None."""
    if os.geteuid() != 0:
        return "a SLURM node is started by root only"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    return f"{missing[0]} is missing (apt-get install slurm-wlm munge)" if missing else None


def call(*words, check=True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=60).stdout


def preempt(job: str) -> None:
    """Sends USR2 and lets the job start again at once; SLURM would wait two minutes."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # scancel goes on while the job is being requeued
        subprocess.run(["scancel", "--signal=USR2", job], timeout=3)
    wait(lambda: f"{job} PD" in call("squeue", "-h", "-r", "-o", "%i %t"), 120, f"job {job} to be requeued")
    call("scontrol", "update", f"JobId={job}", "StartTime=now")


def kill(job: str) -> None:
    """Kills a job, and waits until SLURM knows: one still ending when its node is drained is requeued."""
    call("scancel", "--signal=KILL", job)
    wait(lambda: job not in call("squeue", "-h", "-r", "-o", "%i").split(), 120, f"job {job} to end")


@contextlib.contextmanager
def node():
    """A running node named as this host; stopped at the end, its queue emptied and its state removed.

    There is one at a time: tests in another process wait for it.
    """
    with open(Path(tempfile.gettempdir()) / "unlearncanvas-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from running()


def running():
    host, cpus = socket.gethostname().partition(".")[0], os.cpu_count()
    spools = [Path("/var/spool/slurmctld"), Path("/var/spool/slurmd")]
    for folder in (*spools, Path("/etc/slurm"), *map(Path, OWN)):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in OWN:
        call("chown", "-R", "munge:", folder)
    Path("/etc/slurm/slurm.conf").write_text(CONF.format(host=host, cpus=cpus))
    try:
        call("runuser", "-u", "munge", "--", "munged")
        call("slurmctld")
        call("slurmd")
        wait(lambda: "idle" in call("sinfo", "-h", "-o", "%t", check=False), 120, "the node to be idle")
        yield host
    finally:
        call("scancel", "--me", check=False)
        for path in map(Path, PIDS):
            if path.exists():
                stop(int(path.read_text()))
        for folder in spools:
            shutil.rmtree(folder, ignore_errors=True)


def stop(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 15)
        wait(lambda: not Path(f"/proc/{pid}/exe").exists(), 30, f"process {pid} to end")


def wait(until, seconds: float, what: str):
    """Returns `until()` when it is true; TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not (result := until()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} seconds for {what}")
        time.sleep(0.2)
    return result
