"""Answers on many machines, with Ray: one process per GPU, each with its own copy of the model.

In a pipeline of your own, `Predictor` is a class for ``map_batches``:

>>> table.map_batches(
...     Predictor,
...     fn_constructor_kwargs={"model": "llava-hf/llava-1.5-7b-hf", "method": "st3"},
...     batch_size=8,
...     num_gpus=1,
...     compute=ray.data.ActorPoolStrategy(size=4),
... )
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vistrim.batching.answering import Answerer, Rows
from vistrim.batching.predictor import Predictor, columns, failed, rows_of
from vistrim.errors import MissingPackageError, VistrimError
from vistrim.evaluation.items import Item

__all__ = [
    "LOCAL",
    "ClusterError",
    "Pool",
    "Predictor",
    "answer_on",
    "check_installed",
    "cluster",
    "environment",
    "identity_on",
]

LOCAL = "local"
"""Address of a cluster on this machine that is started for the job."""
ATTEMPTS = 3
"""How often a batch is tried if its process dies; then each of its rows is tried alone."""
CORES_PER_ACTOR = 8
DIED = "the process that answered this row died, probably for lack of memory: use a smaller image or a smaller model"


class ClusterError(VistrimError):
    """A cluster cannot do what it is asked to."""


@dataclass(frozen=True)
class Pool:
    """Processes that answer.

    Attributes
    ----------
    actors : int
        Number of processes.
    num_gpus, num_cpus : float
        What Ray reserves for each.
    gpus : int
        GPUs of the cluster.
    """

    actors: int
    num_gpus: float
    num_cpus: float
    gpus: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """Arguments of Ray."""
        return {"num_gpus": self.num_gpus, "num_cpus": self.num_cpus}


def check_installed() -> None:
    """Refuse a job on Ray if Ray is not installed.

    Raises
    ------
    MissingPackageError
        If so.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingPackageError("--ray needs Ray: run `pip install 'vistrim[ray]'`")


@contextmanager
def cluster(address: str, actors: int | None = None) -> Iterator[Pool]:
    """Connect to a cluster, and disconnect at the end.

    Parameters
    ----------
    address : str
        Address such as ``"auto"`` or ``"ray://host:10001"``; ``"local"`` starts a cluster on this machine.
    actors : int, optional
        Number of processes. By default, one per GPU, or without GPUs one per 8 cores.

    Yields
    ------
    Pool

    Raises
    ------
    ClusterError
        If the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    own = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    # Ray raises many types, among them plain exceptions.
    except Exception as error:
        raise ClusterError(
            f"--ray {address}: there is no such cluster ({error}): check the address, or use local"
        ) from error
    try:
        total = ray.cluster_resources()
        gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
        number = actors or gpus or max(1, cpus // CORES_PER_ACTOR)
        # Half of the cores are left to Ray's own tasks, which would otherwise wait for ever.
        yield Pool(number, min(1.0, gpus / number), max(0.01, math.floor(50 * cpus / number) / 100), gpus)
    finally:
        ray.shutdown()


def identity_on(pool: Pool, predictor: Predictor) -> dict[str, str]:
    """`Predictor.identity`, on a machine of the cluster.

    Raises
    ------
    VistrimError, ValueError
        See `Predictor.identity`.
    """
    import ray

    # After one call, its process ends and frees the memory of the model.
    ask = ray.remote(max_calls=1, runtime_env=environment(pool), **pool.resources)(_identity)
    try:
        return dict(ray.get(ask.remote(predictor)))
    except ray.exceptions.RayTaskError as error:
        # Without the traceback of the other process.
        raise error.cause from None


def answer_on(pool: Pool, batch_size: int, attempts: int = ATTEMPTS) -> Answerer:
    """Answer on a cluster.

    If a process dies, its batch is tried again, and in the end each row alone, so that only the row that is the cause
    has no answer.
    """

    def answer(predictor: Predictor, items: Sequence[Item]) -> Rows:
        left = {item.id: item for item in items}
        for size in (batch_size, 1):
            if left:
                for batch in _map(pool, predictor, list(left.values()), size, attempts):
                    # Rows of a batch that killed its process are tried alone.
                    found = [row for row in batch if row["error"] != DIED or size == 1]
                    for row in found:
                        del left[row["id"]]
                    yield found

    return answer


class _Attempts:
    """Counts how often each batch was begun, in a process of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: Counter[tuple[str, ...]] = Counter()

    def begin(self, batch: tuple[str, ...]) -> bool:
        """Whether the batch may be tried now, which counts as an attempt."""
        self._begun[batch] += 1
        return self._begun[batch] <= self._most


class _Actor:
    """A process of the pool: loads the model once, when it starts.

    Ray starts a process that died again, and repeats its batch without end: a batch that was begun too often is given
    up here.
    """

    def __init__(self, predictor: Predictor, attempts: Any) -> None:
        predictor.load()
        self._predict, self._attempts = predictor, attempts

    def __call__(self, table: Any) -> dict[str, list[Any]]:
        import ray

        # In numpy's columns, bytes lose zeros at their end.
        batch = table.to_pydict()
        if not ray.get(self._attempts.begin.remote(tuple(batch["id"]))):
            kept = {name: batch[name] for name in ("id", "prompt")}
            return kept | {name: [value] * len(batch["id"]) for name, value in failed(DIED).items()}
        return self._predict(batch)


def _map(pool: Pool, predictor: Predictor, items: Sequence[Item], batch_size: int, most: int) -> Rows:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    batches = math.ceil(len(items) / batch_size)
    attempts = ray.remote(num_cpus=0)(_Attempts).remote(most)
    answered = ray.data.from_items(rows_of(columns(items)), override_num_blocks=batches).map_batches(
        _Actor,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(pool.actors, batches)),
        fn_constructor_kwargs={"predictor": predictor, "attempts": attempts},
        runtime_env=environment(pool),
        **pool.resources,
    )
    for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield batch.to_pylist()


def environment(pool: Pool) -> dict[str, Any]:
    """Threads of a process on the CPU. Ray would give it one, because it reserves a fraction."""
    threads = max(1, round(2 * pool.num_cpus))
    return {} if pool.num_gpus else {"env_vars": {"OMP_NUM_THREADS": str(threads)}}


def _identity(predictor: Predictor) -> dict[str, str]:
    return predictor.identity()
