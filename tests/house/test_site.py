"""The documents as a site: every page is in its contents, and what the hook makes of links and docstrings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.house.project import ROOT


def test_every_document_is_a_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = {name for group in yaml.safe_load(text)["nav"] for name in _pages(group)}
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed == written | {"index.md", "contributing.md", "changelog.md", "weights.md"}


def _pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry if isinstance(entry, list) else list(entry.values()) if isinstance(entry, dict) else []
    return [page for part in parts for page in _pages(part)]


@pytest.mark.slow
def test_no_link_leads_nowhere(tmp_path: Path) -> None:
    """As `make docs`; what stands elsewhere in the repository is there, and the reference has what docstrings say."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'qartsr[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Low-bit quantization of one-step" in (tmp_path / "index.html").read_text()
    reference = (tmp_path / "reference" / "index.html").read_text()
    assert "from_pretrained" in reference and "MLFLOW_TRACKING_URI names, its SHA-256 verified" in reference
    assert ":func:" not in reference and " at 0x" not in reference
