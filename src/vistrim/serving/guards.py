"""ASGI middleware: request ids, access log, API key, size of bodies and number of requests.

Written against ASGI itself: Starlette's ``BaseHTTPMiddleware`` hides disconnects from streams.
"""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from vistrim.serving.errors import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
BODY_SECONDS = 30.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

access = logging.getLogger("vistrim.serving.access")


async def send_error(send: Send, error: RequestError) -> None:
    """Answer with an error object."""
    body = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


class Logged:
    """Gives each request an id, which the answer repeats, and logs one line of JSON per request.

    Parameters
    ----------
    app : callable
        The ASGI application inside.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            line = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(time.monotonic() - began, 4),
            }
            access.info(json.dumps(line))


class Guarded:
    """Refuses requests without the API key.

    A server without a key that listens on this machine only refuses requests to other host names, because a web page
    could reach it by a name that resolves to 127.0.0.1.

    Parameters
    ----------
    app : callable
        The ASGI application inside.
    api_key : str or None
        The key.
    is_local : bool
        Whether the server listens on this machine only.
    public : collection of str
        Paths that need no API key.
    """

    def __init__(self, app: App, api_key: str | None, is_local: bool, public: Collection[str]) -> None:
        self._app, self._is_local, self._public = app, is_local, public
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope)) is not None:
            await send_error(send, error)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        if self._key is not None:
            if scope["path"] in self._public:
                return None
            scheme, _, given = _header(scope, b"authorization").partition(b" ")
            if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._key):
                return None
            return RequestError("wrong or missing API key", status=401, code="invalid_api_key")
        host = _header(scope, b"host").decode("latin-1").lower()
        if self._is_local and re.sub(r":\d+$", "", host) not in LOCAL_HOSTS:
            return RequestError(
                "this server answers requests to localhost only: start it with an API key or another --host",
                status=403,
                code="host_not_allowed",
            )
        return None


class Room:
    """Counts the requests in progress, and the bytes of their bodies.

    Parameters
    ----------
    most : int
        Most requests at a time.
    most_bytes : int
        Most bytes at a time.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.inside = self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the next request will be refused."""
        return self.inside >= self.most


class Admission:
    """Limits the number of requests with a body, their type and size.

    A request counts from its first byte to the end of its answer. Bodies are read here, and counted while they arrive.

    Parameters
    ----------
    app : callable
        The ASGI application inside.
    room : Room
        Counts the requests.
    body_bytes : int
        Largest body.
    retry_after : callable
        Returns the seconds after which a refused request may succeed.
    reject : callable
        Counts a refused request by its reason.
    """

    def __init__(
        self, app: App, room: Room, body_bytes: int, retry_after: Callable[[], int], reject: Callable[[str], None]
    ) -> None:
        self._app, self._room, self._body_bytes = app, room, body_bytes
        self._retry_after, self._reject = retry_after, reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        was_full = self._room.is_full
        self._room.inside += 1
        body = bytearray()
        try:
            await self._admit(was_full, body, scope, receive, send)
        except RequestError as error:
            self._reject(error.code)
            await send_error(send, error)
        finally:
            self._room.inside -= 1
            self._room.bytes -= len(body)

    async def _admit(self, is_full: bool, body: bytearray, scope: Scope, receive: Receive, send: Send) -> None:
        if is_full:
            raise self._full()
        # A web page may send other types without the permission of the browser.
        if _header(scope, b"content-type").partition(b";")[0].strip().lower() != b"application/json":
            raise RequestError("send the header content-type: application/json", status=415, code="wrong_content_type")
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length[:20]) > self._body_bytes:
            raise self._too_large()
        try:
            is_there = await asyncio.wait_for(self._read(body, receive), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise RequestError("the body did not arrive in time", status=408, code="body_timeout") from None
        if not is_there:
            return
        sent = False

        async def receive_again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, receive_again, send)

    async def _read(self, body: bytearray, receive: Receive) -> bool:
        """Read the body. Returns False if the client has gone."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            piece = message.get("body", b"")
            body += piece
            self._room.bytes += len(piece)
            if len(body) > self._body_bytes:
                raise self._too_large()
            if self._room.bytes > self._room.most_bytes:
                raise self._full()
            if not message.get("more_body", False):
                return True

    def _full(self) -> RequestError:
        return RequestError(
            "too many requests wait already: try again later",
            status=429,
            code="queue_full",
            retry_after=self._retry_after(),
        )

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body has more than {self._body_bytes} bytes: send fewer or smaller images",
            status=413,
            code="body_too_large",
        )
