"""Recipe of the sample backbone: the photographs, from Debian's wallpaper packages."""

from __future__ import annotations

from qartsr.data.wallpapers import write_wallpapers
from stages._stage import arguments, stage


def main() -> None:
    """Write the data folder and its manifest."""
    args = arguments(__doc__, "--table", "--out")
    manifest = write_wallpapers(args.table, args.out)
    print(f"{len(manifest['train'])} photographs to train on, {len(manifest['test'])} held out")


if __name__ == "__main__":
    stage(main)
