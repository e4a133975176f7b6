"""The engine: one thread that answers jobs in batches. It knows nothing of HTTP."""

import copy
import gc
import logging
import threading
from collections.abc import Sequence
from typing import Any

import torch

from vistrim._utils.memory import is_out_of_memory
from vistrim.engine import describe
from vistrim.serving.batches import BatchRunner
from vistrim.serving.errors import generation_failed, out_of_memory, shutting_down
from vistrim.serving.jobs import Job
from vistrim.serving.preparing import Preparer
from vistrim.serving.waiting import WaitingJobs

log = logging.getLogger("vistrim.serving")


class Engine:
    """Answers jobs with a model.

    A model is trimmed by one method at a time. Jobs that arrive while a batch runs wait, and run together afterwards
    if they have the same method and number of log-probabilities.

    Parameters
    ----------
    model : PreTrainedModel
        The model, as `vistrim.load` returns it.
    processor : ProcessorMixin
        Its processor.
    batch_size : int
        Most jobs of a batch.
    wait_seconds : float
        Longest time that the first job of a batch waits for others.

    Attributes
    ----------
    model : PreTrainedModel
        The model.
    spec : ModelSpec
        Its description.
    preparer : Preparer
        Makes prompts.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed.
    """

    def __init__(self, model: Any, processor: Any, *, batch_size: int = 8, wait_seconds: float = 0.01) -> None:
        self.model, self.spec = model, describe(model)
        self.preparer = Preparer(processor, self.spec)
        if not self.preparer.can_batch and batch_size > 1:
            log.warning("prompts of this processor cannot be put into a batch: they run one by one")
            batch_size = 1
        # The processor's own tokenizer is used by the threads that make prompts.
        self._runner = BatchRunner(model, copy.deepcopy(processor.tokenizer), self.spec)
        self._waiting = WaitingJobs(batch_size, wait_seconds)
        self._batch: Sequence[Job] = ()
        self._thread = threading.Thread(target=self._work, name="vistrim-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of answers that are being generated."""
        return sum(not job.is_over for job in self._batch)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV caches of the running batch, as of the last complete answer."""
        return self._runner.kv_bytes

    @property
    def is_alive(self) -> bool:
        """Whether jobs are being answered."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Answer a job: its events are delivered from the engine's thread."""
        if not self._waiting.put(job):
            job.fail(shutting_down())

    def close(self, seconds: float | None = None) -> None:
        """Answer the jobs that wait, then end.

        Parameters
        ----------
        seconds : float or None
            Longest time to wait for the end. None: no limit.
        """
        self._waiting.close()
        self._thread.join(seconds)

    def _work(self) -> None:
        while (jobs := self._waiting.take()) is not None:
            try:
                self._answer(jobs)
            except Exception:
                # Whatever it is, the next batch must not suffer from it.
                log.exception("answers could not be delivered")
            self._batch = ()
            # The loop would keep the last prompts alive while it waits.
            del jobs

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer a batch. If it fails, answer its jobs one by one, so that only those at fault fail."""
        self._batch = jobs
        failure = self._try(jobs)
        if failure is None:
            return
        if len(jobs) == 1:
            jobs[0].fail(out_of_memory() if failure == "memory" else generation_failed())
            return
        for job in jobs:
            if not job.is_over and not job.drop_if_pointless():
                self._answer([job])

    def _try(self, jobs: Sequence[Job]) -> str | None:
        """Run a batch once. Returns None, or the kind of failure, without the error, which would keep tensors alive."""
        try:
            self._runner.run(jobs, self.preparer.collate([job.inputs for job in jobs]))
        except Exception as error:
            kind = "memory" if is_out_of_memory(error) else "error"
            ids = ", ".join(job.request_id for job in jobs)
            log.exception("a batch failed with method %s, for the requests %s", jobs[0].group[0] or "untouched", ids)
        else:
            return None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return kind
