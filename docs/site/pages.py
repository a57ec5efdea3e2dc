"""A hook of mkdocs: pages that stand elsewhere in the repository, links to what is no page, and the reference."""

from __future__ import annotations

import inspect
import posixpath
import pydoc
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "weights/README.md": "weights.md",
}
"""File of the repository -> its page."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add them."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files become links between pages; a file that is no page is named, for the site has no code."""
    origin = next(
        (source for source, name in ELSEWHERE.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}"
    )

    def lead(match: re.Match[str]) -> str:
        bang, text, target, anchor = match.groups()
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if path in ELSEWHERE:
            return f"{bang}[{text}]({ELSEWHERE[path]}{anchor or ''})"
        if path.startswith("docs/"):
            return f"{bang}[{text}]({path.removeprefix('docs/')}{anchor or ''})"
        assert (ROOT / path).exists(), f"{origin}: {target} leads nowhere"
        return text if f"`{path}`" == text or path == text else f"{text} (`{path}`)"

    return re.sub(r"^::: (\S+)$", lambda match: _reference(match[1]), _LINK.sub(lead, markdown), flags=re.MULTILINE)


def _reference(name: str) -> str:
    """A class and its public members, in the order of its file."""
    kind: Any = pydoc.locate(name)
    members = [(key, inspect.unwrap(getattr(kind, key))) for key in vars(kind) if key == "__call__" or key[0] != "_"]
    documented = [(key, each) for key, each in members if inspect.isroutine(each) and inspect.getdoc(each)]
    parts = [f"## {kind.__name__}", _text(inspect.getdoc(kind))]
    for key, each in documented:
        signature = re.sub(r"<function (\w+) at \w+>", r"\1", str(inspect.signature(each)))
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)
        parts += [f"### `{key}`", f"```python\n{key}{signature}\n```", _text(inspect.getdoc(each))]
    return "\n\n".join(parts)


def _text(doc: str | None) -> str:
    """Markdown of a docstring: a parameter, with what belongs to it, is an item of a list."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", doc or "").replace("``", "`")
    text = re.sub(r"^Parameters\n-+\n", "\n**Parameters**\n\n", text, flags=re.MULTILINE)
    return re.sub(r"^([a-z_]+(?:, [a-z_]+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)
