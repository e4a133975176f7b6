"""The response of a streamed answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi.responses import Response

from vistrim.serving.guards import Receive, Scope, Send


class EventStream(Response):
    """Sends server-sent events. The answer itself watches for the disconnect of the client.

    Parameters
    ----------
    events : async generator of bytes
        The events. It is closed if the client goes or does not read.
    seconds : float
        Longest time that the client may take to accept an event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], seconds: float) -> None:
        # Proxies such as nginx would collect events.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._seconds = events, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for event in events:
                    part = {"type": "http.response.body", "body": event, "more_body": True}
                    await asyncio.wait_for(send(part), self._seconds)
            # Servers raise it if the client has gone. The connection of a client that does not read is closed.
            except (OSError, asyncio.TimeoutError):
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
