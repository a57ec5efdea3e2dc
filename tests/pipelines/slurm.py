"""A real Slurm of two nodes with two GPUs each on this machine: real daemons, GPUs that are character devices."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.pipelines.alive import until

PROGRAMS = ("slurmctld", "slurmd", "srun", "scancel", "scontrol", "squeue", "salloc", "munged")
NODES = ("gpu1", "gpu2")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

CONFIGURATION = """
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=5
GresTypes=gpu
NodeName=gpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=gpu Nodes=gpu[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{absent[0]} is not installed; `make cluster-test` installs Slurm (Debian, Ubuntu) and runs this"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


def _port(number: int) -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1]) + 0 * number


@contextmanager
def cluster(root: Path) -> Iterator[dict[str, str]]:
    """The environment of a running cluster, which ends with the context."""
    for folder in ("state", "log", "dev", *(f"spool/{node}" for node in NODES)):
        (root / folder).mkdir(parents=True)
    for number in (0, 1):
        os.mknod(root / "dev" / f"nvidia{number}", 0o20666, os.makedev(195, number))
    first = next(p for p in range(27001, 28000, 2) if all(_free(p + n) for n in (0, 1)))
    text = CONFIGURATION.format(host=socket.gethostname(), port=_port(0), root=root, first=first, second=first + 1)
    (root / "slurm.conf").write_text(text)
    devices = f"AutoDetect=off\nNodeName=gpu[1-2] Name=gpu File={root}/dev/nvidia[0-1]\n"
    (root / "gres.conf").write_text(devices)
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(root / "slurm.conf")}
    _munge()
    try:
        subprocess.run(["slurmctld", "-c", "-f", str(root / "slurm.conf")], env=environment, check=True)
        for node in NODES:
            subprocess.run(["slurmd", "-N", node, "-f", str(root / "slurm.conf")], env=environment, check=True)
        assert until(lambda: _idle(environment), 60), (root / "log" / "slurmctld.log").read_text()[-3000:]
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld"):
            with suppress(OSError, ValueError):
                os.kill(int((root / f"{name}.pid").read_text()), signal.SIGTERM)


def _free(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) != 0


def _idle(environment: dict[str, str]) -> bool:
    command = ["scontrol", "--oneliner", "show", "nodes"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    return said.count("State=IDLE ") == len(NODES)


def _munge() -> None:
    """The daemon that vouches for users; one that runs already is left as it is."""
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        return
    subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", "0755", "/run/munge"], check=True)
    subprocess.run(["runuser", "-u", "munge", "--", shutil.which("munged", path=_PATH) or "munged"], check=True)
    assert until(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, 15)


def queue(environment: dict[str, str]) -> list[str]:
    """Names of all jobs that wait or run."""
    command = ["squeue", "--noheader", "--format=%j %T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
