"""Devices and seeds."""

from __future__ import annotations

import pytest
import torch

from qartsr.config.schema import ComputeConfig
from qartsr.errors import QartsrError
from qartsr.training.determinism import generator, prepare


def test_streams_differ_by_purpose() -> None:
    draws = [torch.rand(3, generator=generator(0, *purpose)) for purpose in (("a", 1), ("a", 2), ("b", 1))]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(draws[0], torch.rand(3, generator=generator(0, "a", 1)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(QartsrError, match="no CUDA device"):
        prepare(ComputeConfig(device="cuda"), 1)
