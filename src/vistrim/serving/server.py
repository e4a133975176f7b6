"""The HTTP server."""

import logging
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

log = logging.getLogger("vistrim.serving")

DRAIN_SECONDS = 5.0
"""Added to the deadline, so that all requests in progress are answered before the server ends."""


def set_up_log() -> None:
    """Log to standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or SIGINT, then answers the requests in progress.

    ``run`` raises SystemExit if it cannot listen; the log has the reason.

    Parameters
    ----------
    app : FastAPI
        The application.
    host : str
        Address to listen on.
    port : int
        Port. 0: any free port.
    deadline : float
        Seconds within which requests are answered. Those in progress at the end have `DRAIN_SECONDS` more.
    announce : callable
        Receives the URL when the server listens.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, deadline: float, announce: Callable[[str], None] = print
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(deadline + DRAIN_SECONDS),
            )
        )
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the URL."""
        await super().startup(sockets)
        if self.started:
            self._announce(url(*self.servers[0].sockets[0].getsockname()[:2]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, answer the requests in progress, and log both."""
        number = len(self.server_state.tasks)
        log.info(
            "stopping: %d %s in progress, at the latest in %d s",
            number,
            "request" if number == 1 else "requests",
            self.config.timeout_graceful_shutdown,
        )
        await super().shutdown(sockets)
        log.info("stopped")


def url(host: str, port: int) -> str:
    """Return the URL of an address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
