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

    Labels are ``model`` and ``method``. Methods are labels of the server's list, or "custom", so that requests cannot
    create any number of them.

    Parameters
    ----------
    model : str
        Name of the model.
    """

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        both = ("model", "method")
        self._running = self._gauge("requests_running", "Answers that are being generated")
        self._waiting = self._gauge("requests_waiting", "Requests that wait for their turn")
        self._cache = self._gauge("kv_cache_bytes", "Bytes of keys and values of the answers that are being generated")
        self._info = Gauge(
            "vistrim_model_info", "The model", ("model", "version", "method", "dtype"), registry=self.registry
        )
        self._requests = self._counter("requests", "Accepted requests", (*both, "outcome"))
        self._rejected = self._counter("rejected", "Refused requests", ("model", "reason"))
        self._prompt = self._counter("prompt_tokens", "Prompt tokens, including removed ones", both)
        self._generated = self._counter("generation_tokens", "Generated tokens", both)
        self._visual = self._counter("visual_tokens", "Visual tokens per layer", (*both, "stage"))
        self._broken = self._counter("image_decode_errors", "Images that could not be decoded", ("model",))
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
            gauge.labels(self._model).set_function(read)

    def describe_model(self, method: str, dtype: str) -> None:
        """Describe the model and its default method."""
        self._info.labels(self._model, __version__, method, dtype).set(1)

    def reject(self, reason: str) -> None:
        """Count a refused request by the code of its error."""
        self._rejected.labels(self._model, reason).inc()
        if reason == "invalid_image":
            self._broken.labels(self._model).inc()

    def end(self, method: str, outcome: str, seconds: float) -> None:
        """Count an accepted request and its time."""
        self._requests.labels(self._model, method, outcome).inc()
        self._total.labels(self._model, method).observe(seconds)

    def complete(self, method: str, prompt_tokens: int, completion_tokens: int, figures: dict[str, Any]) -> None:
        """Record the figures of a complete answer, see `vistrim.serving.figures`."""
        at = (self._model, method)
        self._prompt.labels(*at).inc(prompt_tokens)
        self._generated.labels(*at).inc(completion_tokens)
        self._queue.labels(*at).observe(figures["queue_seconds"])
        self._prefill.labels(*at).observe(figures["prefill_seconds"])
        self._first.labels(*at).observe(figures["first_token_seconds"])
        self._peak.labels(*at).observe(figures["kv_bytes_peak"])
        if figures["step_seconds"] is not None:
            self._step.labels(*at).observe(figures["step_seconds"])
        if visual := figures["visual_tokens"]:
            self._vision.labels(*at).observe(figures["encode_seconds"])
            self._visual.labels(*at, "input").inc(visual)
            self._visual.labels(*at, "kept").inc(figures["average_tokens"])
            self._kept.labels(*at).observe(figures["average_tokens"] / visual)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"vistrim_{name}", help_text, ("model",), registry=self.registry)

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"vistrim_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vistrim_{name}", help_text, ("model", "method"), buckets=buckets, registry=self.registry)
