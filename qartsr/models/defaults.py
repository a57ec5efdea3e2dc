"""What a program has set for all of torch must not decide what a model is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Within, new tensors are float32 on the CPU unless they say otherwise, as torch does of itself.

    Programs change that for models of their own (``torch.set_default_dtype``, ``torch.set_default_device``).
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        if torch.get_default_device().type != "cpu":  # entered only then: a device context slows every operation
            stack.enter_context(torch.device("cpu"))
        yield
