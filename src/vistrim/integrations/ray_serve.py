"""The server with Ray Serve: replicas of its application behind one address, each with its own copy of the model."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vistrim.integrations import ray_proxy
from vistrim.integrations.ray import LOCAL, ClusterError, Pool, cluster, environment
from vistrim.loading import load
from vistrim.serving.address import free_port
from vistrim.serving.engine import Engine
from vistrim.serving.limits import Limits
from vistrim.serving.server import DRAIN_SECONDS, set_up_log, url

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "vistrim"
"""Name of the application in Ray Serve."""
STATUS_REQUESTS = 32
"""Requests that a replica answers beside those that it counts against its queue, such as ``/metrics``."""
STARTS = 3
"""How often a replica may fail to start."""


@dataclass(frozen=True)
class Replica:
    """One replica, which can be sent to another process.

    Parameters
    ----------
    model : str
        Reference model, local directory or Hugging Face id.
    dtype, device : str
        See `vistrim.load`.
    batch_size : int
        Most requests that run together.
    wait_seconds : float
        Longest time that the first request of a batch waits for others.
    make_app : callable
        `vistrim.serving.app.create_app` with everything but the engine, the processor and the name of the replica.
    """

    model: str
    dtype: str
    device: str
    batch_size: int
    wait_seconds: float
    make_app: Callable[..., FastAPI]

    def application(self, name: str) -> FastAPI:
        """Load the model, and make the application."""
        model, processor = load(self.model, dtype=self.dtype, device=self.device)
        engine = Engine(model, processor, batch_size=self.batch_size, wait_seconds=self.wait_seconds)
        return self.make_app(engine, processor, replica=name)


class _Checked:
    """Tells Serve whether a replica works. Serve ends one that does not, and starts another."""

    app: FastAPI

    def check_health(self) -> None:
        if not self.app.state.engine.is_alive:
            raise RuntimeError("the engine has ended")


def serve_on(
    address: str,
    replica: Replica,
    replicas: tuple[int, int] | None,
    *,
    host: str,
    port: int,
    limits: Limits,
    announce: Callable[[str], None],
) -> None:
    """Serve on a cluster until SIGTERM or SIGINT, then answer the requests in progress.

    Parameters
    ----------
    address : str
        Address of the cluster; ``"local"`` starts one on this machine.
    replica : Replica
        The replica.
    replicas : tuple of int, optional
        Least and largest number of replicas. If they differ, the number follows the requests in progress, about
        ``batch_size`` for each replica. By default, one per GPU, or without GPUs one per 8 cores.
    host : str
        Address to listen on, on the head node.
    port : int
        Port. 0: any that is free here.
    limits : Limits
        The limits of the application.
    announce : callable
        Receives the URL when all replicas have been started.

    Raises
    ------
    AddressError
        If the address or port cannot be used.
    ClusterError
        If the cluster cannot be reached, a replica does not start, or there are too few GPUs.
    """
    seconds = limits.deadline + DRAIN_SECONDS
    if address == LOCAL or port == 0:
        # Serve would wait for a port that is in use, and takes no port 0.
        port = free_port(host, port)
    if address == LOCAL:
        os.environ[ray_proxy.CALLBACK] = ray_proxy.IMPORT_PATH
    with cluster(address, replicas and replicas[1]) as pool:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        least, most = replicas or (pool.actors, pool.actors)
        if pool.gpus and least > pool.gpus:
            raise ClusterError(f"{least} replicas need a GPU each, and the cluster has {pool.gpus}: use fewer replicas")
        if serve.status().proxies:
            raise ClusterError("Ray Serve runs on this cluster already: run `serve shutdown`, or use another cluster")
        stopped = _Stop()
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port, "request_timeout_s": seconds})
        try:
            try:
                serve.run(deployment(replica, pool, least, most, limits).bind(), name=NAME, route_prefix="/")
            except RuntimeError as error:
                raise ClusterError(f"no replica starts: {_last_line(error)}") from None
            announce(url(host, port))
            stopped.wait()
            _drain(seconds)
        finally:
            serve.shutdown()


def deployment(replica: Replica, pool: Pool, least: int, most: int, limits: Limits) -> Any:
    """Return the deployment of Serve."""
    from ray import serve

    # Serve calls a plain function in each replica.
    def application() -> FastAPI:
        set_up_log()
        return replica.application(serve.get_replica_context().replica_id.unique_id)

    number: dict[str, Any] = {"num_replicas": most}
    if least < most:
        follows = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": replica.batch_size}
        number = {"autoscaling_config": follows}
    # A whole GPU for each replica.
    resources = {"num_cpus": pool.num_cpus, "num_gpus": 1.0 if pool.gpus else 0.0}
    return serve.deployment(
        serve.ingress(application)(_Checked),
        name=NAME,
        ray_actor_options={**resources, "runtime_env": environment(pool)},
        # The application itself refuses what exceeds its queue, with the errors of the API.
        max_ongoing_requests=replica.batch_size + limits.queue + STATUS_REQUESTS,
        graceful_shutdown_timeout_s=limits.deadline + DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=STARTS,
        **number,
    )


class _Stop:
    """SIGTERM and SIGINT. A second signal ends the process at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._event.set()

    def wait(self) -> None:
        self._event.wait()


def _drain(seconds: float) -> None:
    """Accept no further requests, and end when those in progress have been answered."""
    from ray import serve

    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        # It waits for 60 seconds.
        with suppress(TimeoutError):
            serve.delete(NAME)
            return


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
