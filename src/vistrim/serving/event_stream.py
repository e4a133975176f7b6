"""The response of a streamed answer."""

import asyncio

from fastapi.responses import Response

from vistrim.serving.guards import Receive, Scope, Send
from vistrim.serving.service import ChatStream


class EventStream(Response):
    """Sends server-sent events. The answer itself watches for the disconnect of the client.

    Parameters
    ----------
    stream : ChatStream
        The events. It is closed in any case.
    seconds : float
        Longest time that the client may take to accept an event.
    """

    media_type = "text/event-stream"

    def __init__(self, stream: ChatStream, seconds: float) -> None:
        # Proxies such as nginx would collect events.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._stream, self._seconds = stream, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._stream:
                part = {"type": "http.response.body", "body": event, "more_body": True}
                await asyncio.wait_for(send(part), self._seconds)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Servers raise it if the client has gone. The connection of a client that does not read is closed.
        except (OSError, asyncio.TimeoutError):
            return
        finally:
            self._stream.close()
