"""Effects are read off made results: best, tied, beaten; helps, harms, no difference."""

from __future__ import annotations

from typing import Any

from experiments.study.method_tables import (
    ablation_effects,
    ablation_table,
    budget_notes,
    method_effects,
    method_table,
)


def _cell(title: str, psnr: float, spread: float = 0.1, rate: float = 1e-3) -> dict[str, Any]:
    def scores(value: float) -> dict[str, float]:
        return {
            "psnr": value, "ssim": 0.5, "lpips_random": 1 / value, "psnr_to_fp": value, "lpips_random_to_fp": 1 / value,
        }  # fmt: skip

    seeds = {
        str(n): {"samples": 104, "means": {name: scores(psnr + spread * (n - 1)) for name in ("all", "one")}}
        for n in range(3)
    }
    return {
        "title": title,
        "timestep": 1,
        "rate": rate,
        "tried": {"0.001": 30.0, "0.01": 20.0},
        "tried_with": 52,
        "seeds": seeds,
    }


FP = {"all": {"psnr": 30.5, "ssim": 1.0, "lpips_random": 0.0}, "one": {"psnr": 30.5, "ssim": 1.0, "lpips_random": 0.0}}


def test_best_tied_and_beaten() -> None:
    for other, state in ((29.0, "best"), (30.05, "tied"), (32.0, "not best")):
        cells = {("lsq", "w4a4"): _cell("LSQ", other), ("qartsr", "w4a4"): _cell("QArtSR", 30.0)}
        found = method_effects(cells, FP)
        assert found["c_w4a4_psnr_to_fp"]["state"] == state
        assert found["c_w4a4_psnr_to_fp"]["holds"] == (state != "not best")
        assert found["e"]["holds"] and found["e"]["loss"]["one"] == 0.5


def test_table_3_states_the_budget_and_marks_no_reference() -> None:
    cells = {("lsq", "w4a4"): _cell("LSQ", 29.0), ("qartsr", "w4a4"): _cell("QArtSR", 30.0)}
    table = method_table(cells, FP, FP, {"one": "RealSR"}, {("lsq", "w4a4"): 1_500_000, ("qartsr", "w4a4"): 1_900_000})
    assert [line.labels[2] for line in table.lines] == ["bicubic", "FP, T = 1", "LSQ", "QArtSR"]
    assert any("104 samples" in note and "2 learning rates tried for 52 samples each" in note for note in table.notes)
    for cell in cells.values():
        cell["tried_with"] = 104
    assert "2 learning rates tried on the first seed" in budget_notes(cells)[1]
    assert not any(line.competes for line in table.lines[:2])


def test_ablations_help_harm_or_make_no_difference() -> None:
    ours = {"w2a2": _cell("QArtSR", 30.0)}
    cells = {(n, "w2a2"): _cell(n, p) for n, p in (("worse", 29.0), ("better", 31.0), ("same", 30.05))}
    found = {name: effect["state"] for name, effect in ablation_effects(cells, ours).items()}
    assert found == {
        "d_w2a2_worse": "helps",
        "d_w2a2_better": "harms",
        "d_w2a2_same": "no difference beyond the spread",
    }
    assert [line.labels[2] for line in ablation_table(cells, ours, "Table 4").lines] == [
        "worse",
        "better",
        "same",
        "QArtSR",
    ]
