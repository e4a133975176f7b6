"""Requests that wait for their turn, and the batches that they form."""

import threading
import time
from collections import deque

from vistrim.serving.jobs import Job


class WaitingJobs:
    """A queue of jobs, from which batches are taken.

    A batch begins with the job that has waited longest, and takes the next ones that can run with it (`Job.group`). If
    there are fewer than ``size``, it waits for more until the first job has waited for ``seconds``.

    Parameters
    ----------
    size : int
        Most jobs of a batch.
    seconds : float
        Longest time that a job waits for others.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._size, self._seconds = size, seconds
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> bool:
        """Add a job. Returns False if the queue is closed."""
        with self._changed:
            if not self._closed:
                job.queued = time.monotonic()
                self._jobs.append(job)
                self._changed.notify()
            return not self._closed

    def close(self) -> None:
        """Accept no further jobs. Those that wait are still taken, without waiting for others."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> list[Job] | None:
        """Wait for the next batch. None if the queue is closed and empty."""
        with self._changed:
            while True:
                self._jobs = deque(job for job in self._jobs if not job.drop_if_pointless())
                if self._jobs:
                    batch = self._batch()
                    left = self._jobs[0].queued + self._seconds - time.monotonic()
                    if len(batch) == self._size or left <= 0 or self._closed:
                        self._jobs = deque(job for job in self._jobs if job not in batch)
                        return batch
                    self._changed.wait(left)
                elif self._closed:
                    return None
                else:
                    self._changed.wait()

    def _batch(self) -> list[Job]:
        group = self._jobs[0].group
        return [job for job in self._jobs if job.group == group][: self._size]
