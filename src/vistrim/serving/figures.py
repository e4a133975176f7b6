"""Measurements of one answer: the ``vistrim`` object of the API."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.marks import Marks
from vistrim.core.costs import prefill_flops
from vistrim.engine import ModelSpec
from vistrim.engine.report.trim_report import TrimReport
from vistrim.engine.report.untrimmed import UntrimmedCache
from vistrim.serving.jobs import Job
from vistrim.serving.rows import Row


class Measured:
    """Makes the figures of answers.

    Parameters
    ----------
    spec : ModelSpec
        Description of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec, self._untrimmed = spec, UntrimmedCache(spec)

    def of(
        self, jobs: Sequence[Job], number: int, row: Row, began: float, marks: Marks, report: TrimReport | None
    ) -> dict[str, Any]:
        """Return the figures of one answer of a batch.

        Parameters
        ----------
        jobs : sequence of Job
            The jobs of the batch.
        number : int
            Position of the answer in the batch.
        row : Row
            The answer, which is complete.
        began : float
            Time of `time.monotonic` at which the batch began.
        marks : Marks
            Times of the batch.
        report : TrimReport or None
            Report of the batch so far. None: the model is untouched.

        Returns
        -------
        dict
            Plain data. Counts, bytes and FLOPs are those of this answer. Times are those of the batch until this answer
            was complete.
        """
        job, passes, layers = jobs[number], len(row.tokens), self._spec.decoder_shape.layers
        full = [self._untrimmed.tokens(job.prompt_tokens + step) for step in range(passes)]
        full_flops = prefill_flops(self._spec.decoder_shape, [job.prompt_tokens] * layers)
        if report is None:
            visual = self._visual_tokens(job)
            per_layer, held, flops, extra = [visual] * layers, full, full_flops, 0
        else:
            visual = report.visual_tokens[number]
            per_layer = [counts[number] for counts in report.visual_tokens_per_layer]
            held = [counts[number] for counts in report.kv_tokens_per_step[:passes]]
            flops, extra = report.prefill_flops_per_sample[number], report.method_flops[number]
        # If layers differ in size, a token counts with its average size.
        bytes_full = [self._untrimmed.nbytes(job.prompt_tokens + step) for step in range(passes)]
        kv = [round(n * size / tokens) for n, size, tokens in zip(held, bytes_full, full, strict=False)]
        found: dict[str, Any] = {
            "method": UNTOUCHED if job.method is None else str(job.method),
            "visual_tokens": visual,
            "visual_tokens_per_layer": per_layer,
            "average_tokens": mean(per_layer),
            "kv_bytes": kv[-1] if kv else 0,
            "kv_bytes_peak": max(kv, default=0),
            "kv_bytes_full": bytes_full[-1] if bytes_full else 0,
            "prefill_flops": flops,
            "prefill_flops_full": full_flops,
            "method_flops": extra,
            **_times(job, row, began, marks),
            "batch_size": len(jobs),
            "warnings": [] if report is None else report.warnings,
        }
        if job.trace:
            trace = None if report is None or report.trace is None else report.trace.to_dict()
            own = None if trace is None else trace | {"samples": [trace["samples"][number]]}
            found |= {"kv_bytes_per_step": kv, "kv_bytes_full_per_step": bytes_full, "trace": own}
        return found

    def _visual_tokens(self, job: Job) -> int:
        placeholders = torch.tensor([*self._spec.visual_token_ids.values()])
        return int(torch.isin(job.inputs["input_ids"], placeholders).sum())


def _times(job: Job, row: Row, began: float, marks: Marks) -> dict[str, float | None]:
    """Return the times of an answer; 0 for phases of the model that did not run because a guide model answered."""
    tokens, encode = marks.tokens[: len(row.tokens)], marks.encode_seconds
    first = marks.timer.seconds(marks.began, tokens[0]) if tokens else 0.0
    steps = len(tokens) - 1
    return {
        "queue_seconds": began - job.arrived,
        "encode_seconds": encode,
        "prefill_seconds": first - encode if tokens else 0.0,
        "first_token_seconds": began - job.arrived + first,
        "step_seconds": marks.timer.seconds(tokens[0], tokens[-1]) / steps if steps > 0 else None,
    }
