"""``make deps``: write the code every stage imports into the dvc.yaml files, file by file.

Rerun it after a change of imports, a new file or a merge; the rest of these files is written by hand and stays as it
is. Of a stage's ``deps``, data comes first, as it stands; code follows, sorted.
"""

from __future__ import annotations

import re

from tests.house.project import CODE, PIPELINES, ROOT, code_of, from_file

_HEADER = re.compile(r"  (\w+):")
_DEPS = re.compile(r"    deps:(\s+#.*)?")
_ITEM = "      - "


def with_code(text: str, file: str) -> str:
    """``text`` of the DVC file ``file`` with the code of every stage brought up to date."""
    found: list[str] = []
    stage, inside = "", False
    for line in [*text.splitlines(), ""]:
        if inside and not line.startswith(_ITEM):
            found += [f"{_ITEM}{from_file(path, file)}" for path in sorted(code_of(stage))]
            inside = False
        if header := _HEADER.fullmatch(line):
            stage = header[1]
        inside = inside or _DEPS.fullmatch(line) is not None
        if not (inside and line.endswith(CODE)):
            found.append(line)
    return "\n".join(found)


def main() -> None:
    """Bring the files up to date; say which one changed."""
    for name in PIPELINES:
        text = (ROOT / name).read_text()
        if (current := with_code(text, name)) != text:
            (ROOT / name).write_text(current)
            print(f"{name}: code dependencies brought up to date")


if __name__ == "__main__":
    main()
