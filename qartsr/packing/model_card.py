"""The model card that travels with a package: what it is, how good, how to run it, what not to expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LICENCES = {
    "sample": "apache-2.0",
    "sample_video": "apache-2.0",
    "osediff": "openrail++",
    "dloral": "openrail++",
    "sample_dit": "apache-2.0",
    "tsdsr": "other",
} | dict.fromkeys(("omgsr", "hypir"), "other")
"""By the kind of backbone: quantized weights stay under the licence of those they were made from.

``other``: that of Stable Diffusion 3 or of HYPIR, which are on no list of names, or none that is stated (OMGSR).
"""


def model_card(profile: str, backbone: str, summary: Mapping[str, Any], kinds: Mapping[str, int]) -> str:
    """Markdown. ``backbone``: its kind; ``summary``: the package's summary.json; ``kinds``: bytes by what they are."""
    parts = "\n".join(f"| {part} | {size:,} |" for part, size in kinds.items() if size)
    return f"""---
license: {LICENCES[backbone]}
library_name: qartsr
pipeline_tag: image-to-image
tags: [super-resolution, diffusion, quantization, {summary["bits"]}]
---

# QArtSR {summary["bits"].upper()}, profile {profile}

One-step diffusion super-resolution, x4, quantized to {summary["bits"].upper()} with the method `{summary["method"]}`
(QArtSR, arXiv 2503.05584). One safetensors file of {summary["bytes"]:,} bytes, no code inside.

SHA-256 `{summary["sha256"]}`

## Quality

{_tables(summary["metrics"], summary["fp"])}

Full-size images, no border crop; against HR, `psnr` and `ssim` on luma, `psnr_rgb` on the three channels. `fp` is the
floating-point model it was made from.

## Use

```
qartsr upscale photo.jpg photo_x4.png --model model.safetensors
```

## Where the bytes are

| part | bytes |
|---|---|
{parts}

## Limits

Trained on the photographs of profile `{profile}` with that profile's degradation; other cameras and other degradations
were not measured. A diffusion model invents detail: do not use its output as evidence.
"""


def _tables(metrics: Mapping[str, Mapping[str, Any]], fp: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for every data set, and for each of its sets of pictures where there are several."""
    tables = []
    for dataset, values in metrics.items():
        sets, full = values.get("sets", {}), fp.get(dataset, {})
        pictures = sum(each["pictures"] for each in sets.values())
        tables.append(_table(f"Data set `{dataset}`" + _count(pictures), values, full))
        for name, each in sets.items() if len(sets) > 1 else ():
            title = f"Of these, `{name}`{_count(each['pictures'])}"
            tables.append(_table(title, each, full.get("sets", {}).get(name, {})))
    return "\n\n".join(tables)


def _table(title: str, values: Mapping[str, Any], fp: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {value:.4f} | {_number(fp.get(name))} |"
        for name, value in values.items()
        if name not in ("sets", "pictures")
    )
    return f"{title}:\n\n| metric | this model | fp |\n|---|---|---|\n{rows}"


def _count(pictures: int) -> str:
    return f", means over {pictures} pictures" if pictures > 1 else ", one picture" if pictures else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
