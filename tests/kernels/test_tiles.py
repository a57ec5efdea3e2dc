"""The cut covers the work with sizes that Triton accepts, and depends on nothing but the shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qartsr.kernels.tiles import Problem, candidates, rule

PROBLEM = st.builds(
    Problem,
    rows=st.integers(1, 2**20),
    outputs=st.integers(1, 2560),
    channels=st.integers(1, 2560),
    taps=st.sampled_from([1, 4, 9]),
)


@given(PROBLEM, st.sampled_from([1, 108, 132]))
def test_sizes_are_legal(problem: Problem, processors: int) -> None:
    found = list(candidates(problem, processors))
    assert found[0] == rule(problem, processors) and len(set(found)) == len(found)
    for tiles in found:
        assert all(size & (size - 1) == 0 for size in (tiles.rows, tiles.outputs, tiles.depth))
        assert tiles.rows >= 16 and tiles.outputs >= 16 and tiles.depth >= 32 and tiles.splits >= 1
        assert tiles.rows * tiles.outputs <= 128 * 256


def test_large_layers_are_not_split_and_small_deep_ones_are() -> None:
    assert rule(Problem(512 * 512, 128, 128, 9), 132).splits == 1
    small = rule(Problem(16 * 16, 1280, 1280, 9), 132)
    assert 1 < small.splits <= 8
