"""The HTTP server."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or SIGINT, then answers the requests that are inside.

    Parameters
    ----------
    app : FastAPI
        The application.
    host : str
        Address to listen on.
    port : int
        Port. 0: any free port.
    drain_seconds : float
        Longest time for the requests that are inside.
    announce : callable
        Receives the URL when the server listens.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, drain_seconds: float, announce: Callable[[str], None] = print
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the URL."""
        await super().startup(sockets)
        if self.started:
            listening = self.servers[0].sockets[0].getsockname()
            self._announce(f"http://{f'[{listening[0]}]' if ':' in listening[0] else listening[0]}:{listening[1]}")
