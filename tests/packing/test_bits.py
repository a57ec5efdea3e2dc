"""Packing: dense, invertible, and laid out as documented."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qartsr.packing import pack_bits, packed_size, unpack_bits

BITS = st.integers(2, 8)


@given(bits=BITS, count=st.integers(0, 70), seed=st.integers(0, 2**31))
@settings(max_examples=200)
def test_round_trip_at_every_length(bits: int, count: int, seed: int) -> None:
    codes = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed))
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_size(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack_bits(packed, bits, count).long(), codes)


@given(bits=BITS, codes=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_the_stream_is_one_little_endian_number(bits: int, codes: list[int]) -> None:
    """Independent truth: Python's big integers."""
    codes = [code % 2**bits for code in codes]
    number = sum(code << index * bits for index, code in enumerate(codes))
    expected = number.to_bytes(packed_size(len(codes), bits), "little")
    assert bytes(pack_bits(torch.tensor(codes), bits).tolist()) == expected


def test_eight_codes_of_three_bits_are_three_bytes() -> None:
    assert pack_bits(torch.tensor([1, 2, 3, 4, 5, 6, 7, 0]), 3).tolist() == [0b11010001, 0b01011000, 0b00011111]


@pytest.mark.parametrize(("codes", "bits"), [([4], 2), ([-1], 4), ([256], 8), ([0], 1), ([0], 9)])
def test_what_does_not_fit_is_refused(codes: list[int], bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        pack_bits(torch.tensor(codes), bits)


def test_a_stream_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), 3, 9)
