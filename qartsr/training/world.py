"""The processes that train one model together: who they are, and the three things they do together.

``torchrun`` and ``accelerate launch`` start them and say through RANK, WORLD_SIZE and LOCAL_RANK who is who. Every
process holds the whole model and applies the same update, so there is nothing to gather: gradients are averaged, the
first process writes, and sometimes all wait.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from qartsr.errors import QartsrError

_PATIENCE = timedelta(days=1)
"""The others wait while the first process measures and writes. Who dies is noticed by the launcher, not by this."""


class World(NamedTuple):
    """This process (``rank`` of ``size``) and where it computes. One process alone is rank 0 of 1."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files, logs and shows progress."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the processes."""
        if self.size == 1:
            return
        pending = [(tensor, tensor.detach().contiguous()) for tensor in tensors]
        for work in [dist.all_reduce(sent, async_op=True) for _, sent in pending]:
            work.wait()
        for tensor, sent in pending:
            tensor.copy_(sent / self.size)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
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


def launched(module: str, processes: int) -> bool:
    """Run ``python -m module`` with this command line in several processes; False when this process is to do the work.

    That is so for one process, and in a process that was launched already: by this function, ``torchrun`` or
    ``accelerate launch``. A failed process ends the program with status 1; it has said why itself. A signal that
    ends this process ends the others first.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        return False
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
