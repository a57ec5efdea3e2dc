"""Table 1: MaxMin at T = 1000, 500 and 1, and whether the error of Z_H follows sqrt(1 - abar_T)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.study.table import Column, Line, Table, Value, summary

_SCOPE = {"unet": "UNet", "model": "UNet + VAE"}
Results = Mapping[str, Any]
"""What stage ``timesteps`` wrote."""


def timestep_tables(results: Results, columns: Sequence[Column], dataset: str, seeds: int) -> list[Table]:
    """The paper's table, on one test set, in both scopes; and the theorem's measurement at all timesteps."""
    lines = [_fp_line(results, t, dataset) for t in _sorted(results["rows"])]
    lines += [
        _line(results, t, bits, scope, dataset)
        for scope in _SCOPE
        for bits in next(iter(results["rows"].values()))
        for t in _sorted(results["rows"])
    ]
    extra = (Column("zh_error", "error of Z_H", 4, -1), Column("lambda", "λ", 4))
    notes = (
        f"Test set: {dataset}. Mean ± standard deviation over {seeds} calibration sets; nothing is trained but the "
        "floating-point backbones, each for the same number of steps from the same weights.",
        "Error of Z_H: root mean square of Z_H_q - Z_H over that of Z_H, the UNet alone quantized on the "
        "floating-point Z_L.",
        *(f"{name}: {_sentence(found)}" for name, found in timestep_effects(results, dataset).items()),
    )
    main = Table("Table 1: timesteps under MaxMin", ("T", "bits", "quantized"), (*columns, *extra), tuple(lines), notes)
    return [main, _theorem_table(results)]


def timestep_effects(results: Results, dataset: str) -> dict[str, Any]:
    """(a) which law the error of Z_H follows, by R squared; (b) whether T = 1 beats T = 1000 once quantized."""
    found: dict[str, Any] = {}
    for bits in next(iter(_probes(results).values()))["bits"]:
        points = [_point(probe, bits) for probe in _probes(results).values()]
        errors = [point["zh_error"] for point in points]
        laws = {law: r_squared([point[law] for point in points], errors) for law in ("lambda", "kappa", "kappa_eps")}
        slope = log_slope([point["lambda"] for point in points], errors)
        found[f"a_{bits}"] = {"effect": "error of Z_H = c x", "r2": laws, "log_slope_in_lambda": slope}

    def mean(step: str, bits: str, scope: str, key: str) -> float:
        return _value(results, step, bits, scope, dataset, key).mean

    late, early = (str(step) for step in (max(map(int, results["rows"])), min(map(int, results["rows"]))))
    for scope in _SCOPE:
        for bits in results["rows"][late]:
            gains = {
                key: round(mean(early, bits, scope, key) - mean(late, bits, scope, key), 4)
                for key in ("psnr", "psnr_to_fp", "lpips_random")
            }
            found[f"b_{scope}_{bits}"] = {
                "effect": f"T = {early} over T = {late}, {_SCOPE[scope]} quantized",
                "gain": gains,
                "holds": gains["psnr_to_fp"] > 0,
            }
    return found


def r_squared(x: Sequence[float], y: Sequence[float]) -> float:
    """Share of the variance of y that y = c x explains, c by least squares; below 0 when a constant fits better.

    0 where y does not vary.
    """
    factor = sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
    mean = sum(y) / len(y)
    rest = sum((b - factor * a) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - mean) ** 2 for b in y)
    return round(1 - rest / total, 4) if total else 0.0


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent p of y = c x^p by least squares on logarithms."""
    a, b = [math.log(value) for value in x], [math.log(value) for value in y]
    middle, height = sum(a) / len(a), sum(b) / len(b)
    upper = sum((p - middle) * (q - height) for p, q in zip(a, b, strict=True))
    return round(upper / sum((p - middle) ** 2 for p in a), 4)


def _theorem_table(results: Results) -> Table:
    bits = list(next(iter(_probes(results).values()))["bits"])
    columns = [Column("lambda", "λ = √(1-ᾱ)", 4), Column("kappa", "κ = λ/√ᾱ", 4), Column("eps", "ε", 3)]
    columns += [
        Column(f"{key}_{b}", f"error of {name}, {b}", 5) for b in bits for key, name in (("zh", "Z_H"), ("e", "ε"))
    ]
    lines = []
    for step, probe in _probes(results).items():
        first = probe["bits"][bits[0]]
        values = {"lambda": Value(probe["lambda"]), "kappa": Value(probe["kappa"]), "eps": first["eps"]}
        for b in bits:
            values |= {f"zh_{b}": probe["bits"][b]["zh_error"], f"e_{b}": probe["bits"][b]["eps_error"]}
        lines.append(Line((step,), values))
    notes = (
        "Root mean squares, UNet alone quantized by MaxMin, fed with the floating-point Z_L. ε: of the floating-point "
        "noise. Z_H_q - Z_H is exactly κ (ε_q - ε); the paper's law λ also needs the error of ε to shrink as √ᾱ.",
    )
    return Table("The theorem: errors over T", ("T",), tuple(columns), tuple(lines), notes)


def _probes(results: Results) -> dict[str, Any]:
    """Timestep, largest first -> λ, κ, and per bit-width the errors as means over seeds."""
    found = {}
    for step in _sorted(results["probes"]):
        seeds = list(results["probes"][step].values())
        rows = {
            bits: {key: summary([seed["bits"][bits][key] for seed in seeds]) for key in seeds[0]["bits"][bits]}
            for bits in seeds[0]["bits"]
        }
        found[step] = {"lambda": seeds[0]["lambda"], "kappa": seeds[0]["kappa"], "bits": rows}
    return found


def _point(probe: Mapping[str, Any], bits: str) -> dict[str, float]:
    row = probe["bits"][bits]
    kappa_eps = probe["kappa"] * row["eps"].mean
    return {
        "lambda": probe["lambda"],
        "kappa": probe["kappa"],
        "kappa_eps": kappa_eps,
        "zh_error": row["zh_error"].mean,
    }


def _line(results: Results, step: str, bits: str, scope: str, dataset: str) -> Line:
    runs = results["rows"][step][bits].values()
    values = {key: _value(results, step, bits, scope, dataset, key) for key in next(iter(runs))[scope][dataset]}
    values["zh_error"] = summary([run["latents"]["zh_error"] / run["latents"]["zh"] for run in runs])
    values["lambda"] = Value(_probes(results)[step]["lambda"])
    return Line((step, bits, _SCOPE[scope]), values, f"{bits} {scope}")


def _fp_line(results: Results, step: str, dataset: str) -> Line:
    scores = {key: Value(value) for key, value in results["fp"][step][dataset].items() if not key.endswith("_to_fp")}
    return Line(
        (step, "fp32", "-"), {**scores, "lambda": Value(_probes(results)[step]["lambda"])}, "fp", competes=False
    )


def _value(results: Results, step: str, bits: str, scope: str, dataset: str, key: str) -> Value:
    return summary([run[scope][dataset][key] for run in results["rows"][step][bits].values()])


def _sorted(rows: Mapping[str, Any]) -> list[str]:
    return sorted(rows, key=int, reverse=True)


def _sentence(found: Mapping[str, Any]) -> str:
    if "r2" in found:
        names = {"lambda": "λ", "kappa": "κ", "kappa_eps": "κ times the size of ε"}
        laws = ", ".join(f"x = {names[law]}: R² {value:.3f}" for law, value in found["r2"].items())
        return f"error of Z_H = c x over all timesteps, {laws}; exponent of λ {found['log_slope_in_lambda']:.2f}."
    gains = found["gain"]
    sign = "holds" if found["holds"] else "does not hold"
    return f"{found['effect']}: PSNR {gains['psnr']:+.3f} dB, PSNR to FP {gains['psnr_to_fp']:+.3f} dB; {sign}."
