"""Prometheus metrics of a server."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vistrim._version import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BYTES = tuple(float(4**n) for n in range(8, 19))
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

COMPLETE, FAILED, EXPIRED, CANCELLED = "complete", "failed", "expired", "cancelled"
"""Outcomes of requests that were accepted."""


class Metrics:
    """The metrics of one server, in a registry of their own.

    Labels are ``model``, ``method`` and, with several servers, ``replica``. Methods are labels of the server's list, or
    "custom", so that requests cannot create any number of them.

    Parameters
    ----------
    model : str
        Name of the model.
    replica : str or None
        Name of this one of several servers behind one address, for a further label ``replica``.
    """

    def __init__(self, model: str, replica: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model": model} if replica is None else {"model": model, "replica": replica}
        self._running = self._gauge("requests_running", "Answers that are being generated")
        self._waiting = self._gauge("requests_waiting", "Requests that wait for their turn")
        self._cache = self._gauge("kv_cache_bytes", "Bytes of keys and values of the answers that are being generated")
        self._info = self._gauge("model_info", "The model", "version", "method", "dtype")
        self._requests = self._counter("requests", "Accepted requests", "method", "outcome")
        self._rejected = self._counter("rejected", "Refused requests", "reason")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens, including removed ones", "method")
        self._generated = self._counter("generation_tokens", "Generated tokens", "method")
        self._visual = self._counter("visual_tokens", "Visual tokens per layer", "method", "stage")
        self._broken = self._counter("image_decode_errors", "Images that could not be decoded")
        self._queue = self._histogram("request_queue_seconds", "Arrival to start of the generation", _SECONDS)
        self._vision = self._histogram("vision_seconds", "Encoding of images", _SECONDS)
        self._prefill = self._histogram("prefill_seconds", "Encoded images to first token", _SECONDS)
        self._first = self._histogram("time_to_first_token_seconds", "Arrival to first token", _SECONDS)
        self._step = self._histogram("time_per_output_token_seconds", "Mean time of a decoding step", _SHORT)
        self._total = self._histogram("request_seconds", "Arrival to end of the answer", _SECONDS)
        self._kept = self._histogram("visual_keep_ratio", "Visual tokens kept, mean of layers", _SHARES)
        self._peak = self._histogram("kv_bytes_peak", "Largest KV cache of an answer in bytes", _BYTES)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int], kv_bytes: Callable[[], int]) -> None:
        """Read the gauges from functions when they are collected."""
        for gauge, read in ((self._running, running), (self._waiting, waiting), (self._cache, kv_bytes)):
            gauge.labels(**self._labels).set_function(read)

    def describe_model(self, method: str, dtype: str) -> None:
        """Describe the model and its default method."""
        self._info.labels(**self._labels, version=__version__, method=method, dtype=dtype).set(1)

    def reject(self, reason: str) -> None:
        """Count a refused request by the code of its error."""
        self._rejected.labels(**self._labels, reason=reason).inc()
        if reason == "invalid_image":
            self._broken.labels(**self._labels).inc()

    def end(self, method: str, outcome: str, seconds: float) -> None:
        """Count an accepted request and its time."""
        self._requests.labels(**self._labels, method=method, outcome=outcome).inc()
        self._total.labels(**self._labels, method=method).observe(seconds)

    def complete(self, method: str, prompt_tokens: int, completion_tokens: int, figures: dict[str, Any]) -> None:
        """Record the figures of a complete answer, see `vistrim.serving.figures`."""
        at = {**self._labels, "method": method}
        self._prompt.labels(**at).inc(prompt_tokens)
        self._generated.labels(**at).inc(completion_tokens)
        self._queue.labels(**at).observe(figures["queue_seconds"])
        self._prefill.labels(**at).observe(figures["prefill_seconds"])
        self._first.labels(**at).observe(figures["first_token_seconds"])
        self._peak.labels(**at).observe(figures["kv_bytes_peak"])
        if figures["step_seconds"] is not None:
            self._step.labels(**at).observe(figures["step_seconds"])
        if visual := figures["visual_tokens"]:
            self._vision.labels(**at).observe(figures["encode_seconds"])
            self._visual.labels(**at, stage="input").inc(visual)
            self._visual.labels(**at, stage="kept").inc(figures["average_tokens"])
            self._kept.labels(**at).observe(figures["average_tokens"] / visual)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"vistrim_{name}", help_text, (*self._labels, *labels), registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"vistrim_{name}", help_text, (*self._labels, *labels), registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        labels = (*self._labels, "method")
        return Histogram(f"vistrim_{name}", help_text, labels, buckets=buckets, registry=self.registry)
