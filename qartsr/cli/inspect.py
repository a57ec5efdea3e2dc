"""``qartsr inspect FILE``: what a package says of itself, and what its bytes are spent on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qartsr.cli.command import Command
from qartsr.cli.show import answer_json, show
from qartsr.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from qartsr.packing import Inventory


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a package, the folder of its model.safetensors, models:/NAME@ALIAS or hf://USER/NAME",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _run(args: argparse.Namespace) -> None:
    from qartsr.packing import inspect
    from qartsr.upscale.model_source import is_address, local

    if is_address(args.file):
        import qartsr.api  # noqa: F401  # it knows the addresses

    file = local(args.file)
    inventory = inspect(file / "model.safetensors" if file.is_dir() else file)
    if args.json:
        tables = {"components": inventory.components, "kinds": inventory.kinds, "sizes": inventory.sizes}
        answer_json(_facts(inventory) | tables)
    else:
        show(_facts_table(inventory), _sizes_table(inventory))


def _facts(inventory: Inventory) -> dict[str, Any]:
    header = inventory.header
    return {
        "method": header.method,
        "bits": header.bits,
        "schema_version": header.schema_version,
        "bits_per_weight": round(inventory.bits_per_weight, 4),
        "quantized_layers": len(header.specs()),
        "quantized_weights": inventory.parameters,
        "folded_modules": len(header.constants),
        "bytes": inventory.total,
        "fp16_bytes": inventory.fp16_bytes,
        "times_smaller_than_fp16": round(inventory.times_smaller, 4),
        "provenance": header.provenance,
    }


def _facts_table(inventory: Inventory) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in _flat(_facts(inventory)):
        table.add_row(name.replace("_", " "), Text(f"{value:,}" if isinstance(value, int) else printable(str(value))))
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values under dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _sizes_table(inventory: Inventory) -> Table:
    """A row per kind, a column per component; their sums and shares at the ends."""
    from rich.table import Table

    columns = {name: kinds for name, kinds in inventory.sizes.items() if name != "header"}
    table = Table(show_footer=True)
    table.add_column("bytes", "total")
    for component, kinds in columns.items():
        table.add_column(component, f"{sum(kinds.values()):,}", justify="right")
    table.add_column("total", f"{inventory.total:,}", justify="right")
    table.add_column("share", "100.0 %", justify="right")
    for kind, size in inventory.kinds.items():
        sizes = [f"{kinds[kind]:,}" for kinds in columns.values()]
        table.add_row(kind, *sizes, f"{size:,}", f"{100 * size / inventory.total:.1f} %")
    return table


INSPECT = Command("inspect", "show what a package says of itself and what its bytes are spent on", _arguments, _run)
