"""Batches cover every sample once per epoch and depend on the step number alone."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qartsr.training.determinism import sample


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_every_sample_once_per_epoch(count: int, batch: int, seed: int) -> None:
    indices = torch.cat([sample(count, batch, step, seed, "p") for step in range(count)])
    for epoch in indices.split(count):
        if len(epoch) == count:
            assert sorted(epoch.tolist()) == list(range(count))


def test_a_function_of_the_step() -> None:
    assert torch.equal(sample(10, 4, 7, 0, "p"), sample(10, 4, 7, 0, "p"))
    assert not all(torch.equal(sample(10, 4, s, 0, "p"), sample(10, 4, s, 1, "p")) for s in range(5))
