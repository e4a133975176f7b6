"""What the proxy of Ray Serve answers if a replica dies: errors of OpenAI's API, or the answer of another replica.

By itself, the proxy answers "500 Internal Server Error" as plain text, or closes the connection of an answer that has
begun. Serve takes this function from the variable `CALLBACK` of the process that starts Ray on the head node:
``vistrim serve --ray local`` sets it.
"""

import json

from starlette.middleware import Middleware

from vistrim.serving.errors import RequestError
from vistrim.serving.guards import App, Message, Receive, Scope, Send, send_error

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = f"{__name__}:middleware"
PATHS = "/v1/"
ATTEMPTS = 2
"""A request that makes replicas die must not reach all of them."""
RETRY_AFTER = 10
"""Seconds: about the time in which a replica starts."""


def middleware() -> list[Middleware]:
    """Return the middleware of the proxy."""
    return [Middleware(Recovering)]


class Recovering:
    """Repeats requests whose replica died before its answer began.

    A generation has no effect other than its answer, so that a request may run again. A stream that has begun ends with
    an error.

    Parameters
    ----------
    app : callable
        The ASGI application inside.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
            return
        request = _Request(receive)
        for _ in range(ATTEMPTS):
            answer = _Answer(send)
            # The proxy changes the headers.
            await self._app({**scope, "headers": list(scope["headers"])}, request.again(), answer.send)
            if answer.is_complete or answer.has_begun or request.is_gone:
                break
        if answer.is_complete or request.is_gone:
            return
        if not answer.has_begun:
            await send_error(send, _no_replica())
        elif answer.is_stream:
            body = b"data: " + json.dumps(_no_replica().body()).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": False})


class _Request:
    """The messages of a request, which may be received several times."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._received: list[Message] = []

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone."""
        return bool(self._received) and self._received[-1]["type"] == "http.disconnect"

    def again(self) -> Receive:
        """Return a function that receives the request from its beginning."""
        number = 0

        async def receive() -> Message:
            nonlocal number
            if number == len(self._received):
                self._received.append(await self._receive())
            number += 1
            return self._received[number - 1]

        return receive


class _Answer:
    """Sends an answer, its beginning together with the first part of its body.

    Errors of Serve itself, which are plain text, become error objects.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._error: RequestError | None = None
        self.has_begun = self.is_complete = False

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of events."""
        return self._content_type.startswith(b"text/event-stream")

    async def send(self, message: Message) -> None:
        """Send the next message."""
        if message["type"] == "http.response.start":
            # Serve and the application both add the id of the request.
            headers = {name.lower(): (name, value) for name, value in message["headers"]}
            self._start = {**message, "headers": list(headers.values())}
            return
        if not self.has_begun:
            self.has_begun = True
            self._error = _translated(self._start["status"], self._content_type)
            await (self._send(self._start) if self._error is None else send_error(self._send, self._error))
        if self._error is None:
            await self._send(message)
        self.is_complete = not message.get("more_body", False)

    @property
    def _content_type(self) -> bytes:
        return next((value for name, value in self._start["headers"] if name.lower() == b"content-type"), b"")


def _translated(status: int, content_type: bytes) -> RequestError | None:
    if status < 400 or content_type.startswith(b"application/json"):
        return None
    if status == 408:
        return RequestError("no answer in time: try again later", status=504, code="deadline_exceeded")
    return _no_replica()


def _no_replica() -> RequestError:
    return RequestError(
        "the replica that answered this request has ended, or none is there: try again",
        status=503,
        code="no_replica",
        retry_after=RETRY_AFTER,
    )
