"""What a person sees of the flow on a terminal."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.logging.formatters import PrefectFormatter
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from rich.console import Console

from pipelines.table import not_measured, results_table, rich_tables
from qartsr.remote import split_user
from qartsr.remote.limit import within

_HINTS = re.compile(
    r"To track the changes with git|\s*git add |To enable auto staging|\s*dvc config core|Use `dvc push`"
)

_ANSWER = 15.0
"""Seconds for the first answer of Prefect's server."""
_RETRIES = 7
"""2 + 4 + ... + 128 s: how long a server may be away; the same in prefect.yaml."""


def worth_reading(line: str) -> bool:
    """Whether a line of DVC's output is more than a hint about git."""
    return _HINTS.match(line) is None


def _news(record: logging.LogRecord) -> bool:
    """Whether a record is not Prefect's own repetition of a final state and all that it carries.

    Nor a traceback of a server that has gone: one sentence at the end says that.
    """
    kind = record.exc_info[0] if record.exc_info else None
    if kind is not None and kind.__module__.partition(".")[0] in ("httpx", "httpcore"):
        return False
    return not record.getMessage().startswith(("Finished in state", "Task run failed with state"))


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """Log lines begin with the stage's name alone; a server of the flow's own gets the time it needs to start."""
    style = PrefectFormatter(
        "%(asctime)s %(message)s",
        "%H:%M:%S",
        flow_run_fmt="%(asctime)s %(message)s",
        task_run_fmt="%(asctime)s %(task_run_name)s | %(message)s",
    )
    for handler in logging.getLogger("prefect").handlers + logging.getLogger().handlers:
        handler.setFormatter(style)
        handler.addFilter(_news)
    settings = {
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_CLIENT_MAX_RETRIES: _RETRIES,
    }
    with temporary_settings(settings):
        yield


def demand_server() -> None:
    """Raise ConnectionError at once where PREFECT_API_URL names no server: Prefect's own client tries for minutes."""
    address = os.environ.get("PREFECT_API_URL", "").strip().rstrip("/")
    if not address:
        return

    def ask() -> None:
        with urllib.request.urlopen(f"{split_user(address)[0]}/health", timeout=_ANSWER) as answer:
            answer.read(100)

    try:
        within(_ANSWER, ask)  # a socket's limit begins anew with each byte
    except urllib.error.HTTPError:  # it answers; whether it likes us is for Prefect to say
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConnectionError(f"{split_user(address)[0]} does not answer ({error})") from error


@contextmanager
def _beside(what: str) -> Iterator[None]:
    """Give Prefect what it shows beside a run. A server that is away makes no work fail that is done."""
    try:
        yield
    except Exception as error:  # Prefect's answers to a server that is not there, or goes away, are of many kinds
        logging.getLogger("prefect").warning("Prefect was not given %s: %s", what, error)


def keep_artifact(text: str, key: str, description: str) -> None:
    """Show ``text``, Markdown."""
    with _beside(repr(description)):
        create_markdown_artifact(text, key=key, description=description)


def keep_link(address: str, key: str, description: str) -> None:
    """Show ``address``, if there is one, as a link."""
    if address:
        with _beside(f"the link to {description!r}"):
            create_link_artifact(address, address, key=key, description=description)


def tag_run(*words: str) -> None:
    """Tags of the running flow, beside those of its deployment, to filter by in Prefect's list."""
    with _beside("the run's tags"), get_client(sync_client=True) as client:
        told = [*flow_run.tags, *filter(None, words)]
        client.update_flow_run(UUID(str(flow_run.id)), tags=list(dict.fromkeys(told)))


def unreachable(error: BaseException, kept: str = "") -> str:
    """The sentence for what Prefect raises when its server does not answer; ``kept``: what is not lost."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    do = "run `make services` or unset PREFECT_API_URL"
    return f"error: Prefect: {first}; {do}{f'; {kept}' if kept else ''}."


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook: tell whoever listens at QARTSR_NOTIFY_URL, as JSON, that a run failed, crashed or was cancelled."""
    address = os.environ.get("QARTSR_NOTIFY_URL", "").strip()
    if not address:
        return
    told = {
        "flow": flow.name,
        "run": flow_run.name,
        "id": str(flow_run.id),
        "state": state.name,
        "message": state.message or "",
    }
    text = {**told, "text": f"{told['flow']} {told['run']}: {told['state']}. {told['message']}"}  # what chats show
    body = json.dumps(text).encode()
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
        urllib.request.urlopen(request, timeout=10).close()
    except (OSError, ValueError) as error:
        logging.getLogger("prefect").warning("QARTSR_NOTIFY_URL was not told: %s", error)


def show(folder: Path) -> None:
    """Print the results and where to look further."""
    console = Console()
    rows = results_table(folder)
    for table in rich_tables(rows):
        console.print(table)
    for name, reason in not_measured(folder).items():
        console.print(f"{name} was not measured: it {reason}", soft_wrap=True, highlight=False)
    places = {row.model: row.uri for row in rows if row.uri}
    pages = [folder / "build" / "report" / "index.html", *sorted(folder.glob("build/table*/table*.html"))]
    places |= {
        **{page.parent.name: str(page) for page in pages if page.is_file()},
        "MLflow": split_user(os.environ.get("MLFLOW_TRACKING_URI", "not in use (MLFLOW_TRACKING_URI is unset)"))[0],
        "Prefect": split_user(os.environ.get("PREFECT_API_URL", ""))[0].removesuffix("/api") or "ended with the flow",
        "stop the services": "make stop",
    }
    for name, place in places.items():
        console.print(f"{name:>24}  {place}", soft_wrap=True, highlight=False)
