"""Tiles cover an axis and their weights sum to one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qartsr.upscale.places import fades, starts


@given(
    size=st.integers(1, 400),
    tile=st.integers(2, 30),
    overlap=st.integers(0, 15),
    multiple=st.sampled_from([1, 4, 8]),
    rest=st.integers(0, 7),
)
@settings(max_examples=300)
def test_tiles_cover_evenly_and_fade_into_each_other(
    size: int, tile: int, overlap: int, multiple: int, rest: int
) -> None:
    overlap = min(overlap, tile // 2) * multiple
    size, tile = size * multiple + rest % multiple, tile * multiple
    begins = starts(size, tile, overlap, multiple)
    assert begins[0] == 0
    assert begins[-1] + min(tile, size) == size
    assert all(begin % multiple == 0 for begin in begins[:-1])
    assert begins[-1] % multiple in (0, size % multiple)
    assert all(a + tile - b >= overlap and b > a for a, b in itertools.pairwise(begins))
    total = np.zeros(size)
    for begin, weight in zip(begins, fades(size, tile, begins), strict=True):
        assert weight.min() > 0
        total[begin : begin + len(weight)] += weight
    np.testing.assert_allclose(total, np.ones(size), rtol=0, atol=1e-6)


def test_no_more_tiles_than_needed() -> None:
    assert starts(512, 512, 64, 8) == (0,)
    assert starts(520, 512, 64, 8) == (0, 8)
    assert len(starts(960, 512, 64, 8)) == 2
    assert len(starts(968, 512, 64, 8)) == 3


def test_the_ramp_is_smooth() -> None:
    weight = fades(960, 512, (0, 448))[0]
    assert (np.abs(np.diff(weight)) < 1.6 / 64).all()
    assert (weight[:448] == 1).all()
