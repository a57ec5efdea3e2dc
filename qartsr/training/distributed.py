"""Data-parallel training with the same bytes, but for rounding, whatever the number of processes; micro-batches.

``torchrun`` and ``accelerate launch`` start them and say through RANK, WORLD_SIZE and LOCAL_RANK who is who. Every
process holds the whole model and applies the same update, so there is nothing to gather: gradients are averaged, the
first process writes, and sometimes all wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from qartsr.errors import QartsrError

_PATIENCE = timedelta(days=1)
"""The others wait while the first process measures and writes. Who dies is noticed by the launcher, not by this."""

_FIRST_PORT, _PORTS = 29500, 1000
"""Where the processes of several nodes meet: a port for each job."""


class World(NamedTuple):
    """This process (``rank`` of ``size``) and where it computes. One process alone is rank 0 of 1."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes files, logs and shows progress."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, of any shape, in place, by its mean over the processes."""
        if self.size == 1:
            return
        pending = [(tensor, tensor.detach().contiguous()) for tensor in tensors]
        for work in [dist.all_reduce(sent, async_op=True) for _, sent in pending]:
            work.wait()
        for tensor, sent in pending:
            tensor.copy_(sent / self.size)

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape, in their order: what is summed from them is equal everywhere."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous())
        return found

    def spread(self, count: int, make: Callable[[int], Any]) -> list[Any]:
        """``make(0)`` .. ``make(count - 1)``, each made by one process and sent to all; what is sent is on the CPU."""
        own = {number: make(number) for number in range(self.rank, count, self.size)}
        if self.size == 1:
            return [own[number] for number in range(count)]
        everybodys: list[dict[int, Any]] = [{}] * self.size
        dist.all_gather_object(everybodys, own)
        return [everybodys[number % self.size][number] for number in range(count)]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World(torch.device("cpu"))
"""One process."""


@contextmanager
def init_distributed(device: torch.device) -> Iterator[World]:
    """The world this process was launched into; without a launcher, itself alone.

    Several processes take a GPU each, whatever ``device`` says of its number. A process whose launcher dies, even by
    kill -9, dies within a second, so a stage that is run again never meets a leftover of itself.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    _die_with_parent()
    own = _own(device, int(os.environ["LOCAL_RANK"]))
    gpu = own if own.type == "cuda" else None
    dist.init_process_group("nccl" if gpu else "gloo", timeout=_PATIENCE, device_id=gpu)
    try:
        yield World(own, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def _own(device: torch.device, number: int) -> torch.device:
    if device.type != "cuda":
        return device
    if number >= torch.cuda.device_count():
        what = f"process {number + 1} on this machine finds only {torch.cuda.device_count()} GPUs"
        raise QartsrError(what, "compute.processes", "lower it to the number of GPUs")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _die_with_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="qartsr-parent", daemon=True).start()


def _on_nodes(nodes: int, module: str, processes: int) -> list[str]:
    """The command that starts one torchrun on each node of the allocation."""
    if processes % nodes:
        raise QartsrError(
            f"{processes} processes cannot be spread over {nodes} nodes", "compute.processes", "change it"
        )
    job = os.environ["SLURM_JOB_ID"]
    names = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    first = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()[0]
    facts = subprocess.run(
        ["scontrol", "--oneliner", "show", "node", first], capture_output=True, text=True, check=True
    )
    head = next((word[9:] for word in facts.stdout.split() if word.startswith("NodeAddr=")), first)
    return [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--unbuffered",
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(nodes), "--nproc-per-node", str(processes // nodes),
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{head}:{_FIRST_PORT + int(job) % _PORTS}", "--rdzv-id", job,
        "--max-restarts", "0", *(["--local-addr", head] if head.startswith("127.") else []),
        "--module", module, *sys.argv[1:],
    ]  # fmt: skip


def relaunch_workers(module: str, processes: int) -> bool:
    """Run ``python -m module`` with this command line in several processes; False when this process is to do the work.

    That is so for one process, and in a process that was launched already: by this function, ``torchrun`` or
    ``accelerate launch``. In a Slurm allocation of several nodes (``salloc --nodes=N``) they run on all of them,
    equally many on each. A failed process ends the program with status 1; it has said why itself. A signal that ends
    this process ends the others first. Raises QartsrError when the nodes cannot have equally many.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        return False
    if (nodes := int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))) > 1:
        sys.exit(subprocess.run(_on_nodes(nodes, module, processes)).returncode)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    words = ["--standalone", "--nproc-per-node", str(processes), "--module", module, *sys.argv[1:]]
    try:
        run(parse_args(words))
    except ChildFailedError:
        sys.exit(1)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    return True


class Share(NamedTuple):
    """Images ``start`` .. ``stop`` - 1 of the ``batch`` images of step ``number``, each ``crop`` pixels wide and high.

    What is drawn for an image depends on its place in the whole batch, never on who holds it.
    """

    number: int
    batch: int
    crop: int
    start: int
    stop: int


class MicroBatching(NamedTuple):
    """The processes, and how much of the batch each holds at once. Changes time and memory, never the result."""

    world: World
    micro_batch: int = 0
    """images held at once; 0: all of this process"""
    checkpointing: bool = False
    """activations inside a block are computed again in the backward pass instead of kept"""

    def shares(self, number: int, batch: int, crop: int) -> list[Share]:
        """This process's images of a step, in equal parts. Raises QartsrError when the batch has no equal parts."""
        own = batch // self.world.size
        held = self.micro_batch or own
        if own * self.world.size != batch or own % max(held, 1):
            what = f"a batch of {batch} has no equal parts for {self.world.size} processes that hold {held} images"
            raise QartsrError(what, "compute", "change processes, micro_batch or the batch")
        first = self.world.rank * own
        return [Share(number, batch, crop, start, start + held) for start in range(first, first + own, held)]
