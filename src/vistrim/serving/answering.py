"""Events of a job in the event loop of the server, until its end, its deadline or the disconnect of the client."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from vistrim.serving.errors import deadline_passed
from vistrim.serving.guards import Receive
from vistrim.serving.jobs import Event, Job

T = TypeVar("T")


class Disconnected(Exception):  # noqa: N818
    """The client has gone."""


class Answering:
    """Waits for the answer to one request.

    Parameters
    ----------
    receive : callable
        ASGI's function, after the body has been read.
    seconds : float
        Time until the deadline.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._gone = asyncio.create_task(_until_gone(receive))
        self.arrived, self._seconds = time.monotonic(), seconds
        self._job: Job | None = None

    def deliver(self, event: Event) -> None:
        """Receive an event from the thread of the engine."""
        # The loop is closed if the server ends before the engine.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def start(self, job: Job, submit: Callable[[Job], None]) -> None:
        """Submit the job whose events are awaited."""
        self._job = job
        submit(job)

    async def next(self) -> Event:
        """Wait for the next event, as `wait` does."""
        return await self.wait(self._events.get())

    async def wait(self, result: Awaitable[T]) -> T:
        """Wait for anything that the answer needs.

        Raises
        ------
        RequestError
            If the deadline passes.
        Disconnected
            If the client goes.
        """
        task = asyncio.ensure_future(result)
        left = self.arrived + self._seconds - time.monotonic()
        try:
            await asyncio.wait({task, self._gone}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self._gone.done():
                raise Disconnected
            raise deadline_passed(self._seconds)
        finally:
            task.cancel()

    def close(self) -> None:
        """Give up what has not been answered yet."""
        self._gone.cancel()
        if self._job is not None:
            self._job.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
