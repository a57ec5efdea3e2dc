"""What ``benchmarks.cpu`` found, as Markdown."""

from __future__ import annotations

from typing import Any


def as_markdown(result: dict[str, Any]) -> str:
    computer, settings = result["machine"], result["settings"]
    groups = "\n".join(_group(name, found, settings["parts"]) for name, found in result["groups"].items())
    load = " and ".join(str(value) for value in result["load_average_before_and_after"])
    sizes = result["package_bytes"]
    files = ", ".join(f"{bits} {size / 1e6:.1f} MB" for bits, size in sizes.items())
    peer = result["peer_w8a8_bytes"]
    against = f"; OpenVINO W8A8 {peer / 1e6:.1f} MB, of which w4a4 is {sizes['w4a4'] / peer:.2f}" if peer else ""
    return f"""# One image on a CPU: {settings["arch"]}, {settings["size"]} x {settings["size"]}

{computer["cpu"]}, {computer["cores"]} cores, {computer["memory_gb"]} GB, {", ".join(computer["instructions"])};
{", ".join(f"{name} {value}" for name, value in result["versions"].items())}; {result["date"]}.
Random weights, batch 1, {settings["threads"]} threads, {settings["rounds"]} counted rounds. Load average of the machine
before and after: {load}. Most resident memory: {result["peak_rss_gb"]} GB.

Seconds, median (least to most). "Over ours": seconds divided by those of our engine at W4A4, in the same round.
{groups}
Bytes of a package: {files}{against}.
"""


def _group(name: str, found: dict[str, Any], parts: list[str]) -> str:
    columns = [*parts, "total", "over_ours_w4a4"]
    rows = "\n".join(
        f"| {contestant} | " + " | ".join(_cell(values[column]) for column in columns) + " |"
        for contestant, values in found.items()
    )
    head = " | ".join([*parts, "total", "over ours"])
    return f"\n| group {name} | {head} |\n|---|{'---|' * len(columns)}\n{rows}\n"


def _cell(value: dict[str, Any]) -> str:
    return f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"
