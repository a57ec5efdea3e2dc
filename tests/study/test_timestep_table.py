"""The laws are told apart on data made by one of them; Table 1 has a row for every T, bits and scope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.study.method_tables import COLUMNS
from experiments.study.timestep_table import log_slope, r_squared, timestep_effects, timestep_tables
from qartsr.models.sd_unet.schedule import eq6

STEPS = (999, 499, 1)


def _results(error: Any) -> dict[str, Any]:
    def latents(step: int) -> dict[str, float]:
        return {"zh_error": error(step), "zh": 1.0, "eps_error": 0.1, "eps": 1.0}

    scores = {
        "one": {"psnr": 20.0, "ssim": 0.5, "lpips_random": 0.4, "psnr_to_fp": 30.0, "lpips_random_to_fp": 0.1},
    }
    run = {"unet": scores, "model": scores}
    return {
        "rows": {str(t): {"w2a2": {s: {**run, "latents": latents(t)} for s in "01"}} for t in STEPS},
        "probes": {
            str(t): {
                s: {"lambda": eq6(t).noise, "kappa": eq6(t).amplification, "bits": {"w2a2": latents(t)}} for s in "01"
            }
            for t in (*STEPS, 250)
        },
        "fp": {str(t): {"one": {"psnr": 25.0, "psnr_to_fp": 80.0}} for t in STEPS},
    }


@given(st.floats(0.1, 10), st.lists(st.floats(0.1, 100), min_size=3, max_size=9, unique=True))
def test_a_law_explains_its_own_data(factor: float, x: list[float]) -> None:
    assert r_squared(x, [factor * value for value in x]) == pytest.approx(1)


def test_slope_is_the_exponent() -> None:
    assert log_slope([1.0, 2.0, 5.0], [3.0, 12.0, 75.0]) == pytest.approx(2)


def test_effects_name_the_law_that_made_the_errors() -> None:
    found = timestep_effects(_results(lambda step: 0.3 * eq6(step).noise), "one")["a_w2a2"]
    assert found["r2"]["lambda"] == 1 and found["log_slope_in_lambda"] == pytest.approx(1, abs=1e-3)
    found = timestep_effects(_results(lambda step: 0.3 * eq6(step).amplification), "one")["a_w2a2"]
    assert found["r2"]["kappa"] == 1 and found["r2"]["lambda"] < 0.9


def test_table_1_has_all_rows_and_says_when_nothing_is_gained() -> None:
    main, theorem = timestep_tables(_results(lambda step: 0.1), COLUMNS, "one", 2)
    assert [line.labels[:2] for line in main.lines[:3]] == [("999", "fp32"), ("499", "fp32"), ("1", "fp32")]
    assert len(main.lines) == 3 + 2 * 3 and len(theorem.lines) == 4
    assert any("does not hold" in note for note in main.notes)
