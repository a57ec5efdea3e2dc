"""A pass of RPQ counted: by hand for three modules."""

from __future__ import annotations

from benchmarks.calibration_macs import counted, passes


def test_three_modules_by_hand() -> None:
    """F = 7; behind modules 1, 2 and 3 stand 7, 6 and 4."""
    assert passes([1, 2, 4], [2]) == {
        "naive": 3 * 2 * 7 + 2 * (7 + 6 + 4),
        "cached": 3 * (7 + 6 + 4),
        "hybrid 1/2": 3 * (7 + 6 + 4) / 2 + 3 * 7 / 2,
        "module": 3 * 7,
    }


def test_convolutions_grow_with_the_area() -> None:
    small, large = counted("sample", 32), counted("sample", 64)
    assert list(small) == list(large) and small["decoder.up2"] * 4 == large["decoder.up2"] > 0
