"""The HTTP side: paths, limits, the token, and what is counted of each request."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qartsr.errors import QartsrError
from qartsr.images import TooLargeError, from_base64
from qartsr.server.limits import Limits
from qartsr.server.watch import CONTENT_TYPE, LOG, Watch
from qartsr.server.worker import Worker

COLUMN = "image"
"""The one column of MLflow's protocol, as in :mod:`qartsr.release.flavour`."""
_OPEN = ("/healthz", "/readyz", "/health", "/ping")
"""Paths that ask for no token: probes have none."""
_LOOK = 1.0
"""Seconds between two looks whether whoever asked is still there."""
_CLIENT_GONE = 499
_PATIENCE, _RATE = 20.0, 500.0
"""Seconds that a body may take, and one more for so many bytes of it, as by default in Apache's mod_reqtimeout; and
the longest silence.

Without them as many clients as may wait, each sending a byte now and then, keep everybody else out.
"""


class _RefusedError(Exception):
    """An answer that is not the picture."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, {key.replace("_", "-"): value for key, value in headers.items()}
        if status in (408, 413):  # the rest of the body is not waited for
            self.headers["Connection"] = "close"


class Service:
    """Answers requests with one worker's work."""

    def __init__(self, worker: Worker, limits: Limits, watch: Watch) -> None:
        self._worker, self._limits, self._watch, self._inside = worker, limits, watch, 0
        self._stopping = False

    def stop(self) -> None:
        """Be ready for nothing more; what is inside is finished."""
        self._stopping = True
        self._watch.ready.set(0)

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """The model is loaded and requests are taken."""
        if self._stopping or not self._worker.ready:
            return JSONResponse({"status": "stopping" if self._stopping else "loading"}, 503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self._watch.text(), media_type=CONTENT_TYPE)

    async def upscale(self, request: Request) -> Response:
        """An image file in, a PNG file out."""
        (png,) = await self._answered(request, lambda body: [body])
        return Response(png, media_type="image/png")

    async def invocations(self, request: Request) -> Response:
        """MLflow's protocol: ``dataframe_split`` or ``dataframe_records`` with base64 of image files."""
        made = await self._answered(request, _rows)
        return JSONResponse({"predictions": [{COLUMN: base64.b64encode(each).decode()} for each in made]})

    async def _answered(self, request: Request, parse: Callable[[bytes], list[bytes]]) -> list[bytes]:
        if self._stopping or not self._worker.ready:
            raise _RefusedError(503, "the model is not ready", retry_after="5")
        if self._inside > self._limits.waiting:
            raise _RefusedError(429, f"{self._inside} requests wait already; try again later", retry_after="5")
        self._inside += 1
        self._watch.inside.set(self._inside)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._worked(request, parse(await self._body(request)))
        except TimeoutError as error:
            raise _RefusedError(504, f"it took more than {self._limits.seconds:g} seconds") from error
        except TooLargeError as error:
            raise _RefusedError(413, str(error)) from error
        except QartsrError as error:
            raise _RefusedError(400, str(error)) from error
        finally:
            self._inside -= 1
            self._watch.inside.set(self._inside)

    async def _body(self, request: Request) -> bytes:
        most, parts, size = self._limits.bytes, list[bytes](), 0
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > most:
            raise _RefusedError(413, f"the body has {told} bytes, more than the {most} allowed")
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(_PATIENCE) as limit:
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise _RefusedError(413, f"the body has more than the {most} bytes allowed")
                    parts.append(part)
                    limit.reschedule(min(begun + _PATIENCE + size / _RATE, clock() + _PATIENCE))
        except TimeoutError as error:
            raise _RefusedError(408, f"{size} bytes of a body came in {clock() - begun:.0f} s; send faster") from error
        except ClientDisconnect as error:
            raise _RefusedError(_CLIENT_GONE, "whoever asked has gone") from error
        return b"".join(parts)

    async def _worked(self, request: Request, data: list[bytes]) -> list[bytes]:
        """The worker's answer; nothing is begun for somebody who has gone meanwhile."""
        future = asyncio.wrap_future(self._worker.submit(data, self._limits.pixels))
        try:
            while not (await asyncio.wait({future}, timeout=_LOOK))[0]:
                if await request.is_disconnected():
                    raise _RefusedError(_CLIENT_GONE, "whoever asked has gone")
            return future.result()
        finally:
            future.cancel()


def _rows(body: bytes) -> list[bytes]:
    """Image files of MLflow's JSON. Raises QartsrError."""
    try:
        said = json.loads(body)
        if "dataframe_records" in said:
            texts = [row[COLUMN] for row in said["dataframe_records"]]
        else:
            frame = said["dataframe_split"]
            place = frame["columns"].index(COLUMN)
            texts = [row[place] for row in frame["data"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        do = f'send {{"dataframe_split": {{"columns": ["{COLUMN}"], "data": [["BASE64"]]}}}}'
        raise QartsrError("is not what MLflow sends", "the body", do) from error
    return [from_base64(text, f"row {row}") for row, text in enumerate(texts)]


def application(worker: Worker, limits: Limits, watch: Watch, token: str = "") -> ASGIApp:
    """The server's paths around ``worker``. ``token``: what a request must bear, unless empty."""
    service = Service(worker, limits, watch)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()

    routes = [
        *(Route(path, service.alive) for path in ("/healthz", "/health", "/ping")),
        Route("/readyz", service.ready),
        Route("/metrics", service.metrics),
        Route("/upscale", service.upscale, methods=["POST"]),
        Route("/invocations", service.invocations, methods=["POST"]),
    ]
    paths = [route.path for route in routes]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={_RefusedError: _refused})
    app.state.service = service
    return _Watched(_Guarded(app, token), watch, paths, service)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, _RefusedError)
    request.scope["said"] = str(error)
    return JSONResponse({"message": str(error)}, error.status, headers=error.headers)


class _Guarded:
    """Lets in who bears the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._token and scope["path"] not in _OPEN:
            borne = next((value for key, value in scope["headers"] if key == b"authorization"), b"")
            if not hmac.compare_digest(borne, self._token):
                answer = JSONResponse({"message": "no valid token"}, 401, headers={"WWW-Authenticate": "Bearer"})
                return await answer(scope, receive, send)
        await self._app(scope, receive, send)


class _Watched:
    """Counts, times and logs every request, and gives it a name: its own X-Request-ID, or a new one."""

    def __init__(self, app: ASGIApp, watch: Watch, paths: list[str], service: Service) -> None:
        self._app, self._watch, self._paths, self.service = app, watch, paths, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = time.monotonic(), 500
        given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")[:64]
        name = given.decode("latin-1") if given.isalnum() or given.replace(b"-", b"").isalnum() else uuid.uuid4().hex

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode("latin-1"))]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            self._note(scope, status, time.monotonic() - begun, name)

    def _note(self, scope: Scope, status: int, seconds: float, name: str) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._watch.requests.labels(path, str(status)).inc()
        self._watch.request_seconds.labels(path).observe(seconds)
        if path in ("/upscale", "/invocations", "other"):
            client = (scope.get("client") or ("",))[0]
            facts = {"method": scope["method"], "path": scope["path"][:200], "status": status, "client": client}
            facts |= {"seconds": round(seconds, 3), "request": name}
            if said := scope.get("said"):
                facts["said"] = said
            LOG.info("request", extra={"facts": facts})
