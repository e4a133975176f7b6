"""What a guide did, in the report: its cost, and the samples that it answered alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from vistrim.architectures import ModelSpec
from vistrim.core.costs import prefill_flops
from vistrim.engine.report.trace import SampleTrace, Trace
from vistrim.engine.report.trim_report import Stage, TrimReport
from vistrim.engine.report.untrimmed import UntrimmedCache

T = TypeVar("T")


@dataclass(frozen=True)
class GuideRecord:
    """What the guide did for the samples of a batch, and what the report is to say of those that it answered.

    Attributes
    ----------
    seconds : float
        Wall time of the guide.
    flops : tuple of int
        FLOPs per sample.
    exited : tuple of bool
        The samples that the model does not answer.
    exit_scores : tuple of float
        Score per sample; empty if none was asked for.
    prompt_tokens, visual_tokens, answer_tokens : tuple of int
        Per sample; the answer is the guide's.
    width : int
        Length of the prompts, padding included.
    caches : bool
        Whether the model generates with a KV cache.
    """

    seconds: float
    flops: tuple[int, ...]
    exited: tuple[bool, ...]
    exit_scores: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]
    width: int
    caches: bool

    def complete(self, report: TrimReport, spec: ModelSpec) -> TrimReport:
        """Add the guide, and the samples that it answered, to the report on those that the model answered."""
        if any(self.exited):
            report = self._with_exits(report, spec)
        copies = len(report.visual_tokens) // len(self.exited)
        # The guide answers once for all copies of a sample: the first of them bears the cost.
        flops = [n if copy == 0 else 0 for n in self.flops for copy in range(copies)]
        return replace(
            report,
            method_flops=[own + n for own, n in zip(report.method_flops, flops, strict=True)],
            guide_seconds=self.seconds,
            exited=[gone for gone in self.exited for _ in range(copies)],
            exit_scores=[score for score in self.exit_scores for _ in range(copies)],
        )

    def _with_exits(self, report: TrimReport, spec: ModelSpec) -> TrimReport:
        depth, answered = spec.decoder_shape.layers, self.exited.count(False)
        untrimmed = UntrimmedCache(spec)
        lengths = [n for n, gone in zip(self.answer_tokens, self.exited, strict=True) if gone]
        full = prefill_flops(spec.decoder_shape, [self.width] * depth)
        kv_tokens = report.kv_tokens_per_layer or [[]] * (depth if self.caches else 0)
        return replace(
            self._with_bytes(report, untrimmed, max(lengths)) if self.caches else report,
            visual_tokens=list(self.visual_tokens),
            prompt_tokens=list(self.prompt_tokens),
            visual_tokens_per_layer=[self._spread(row, 0) for row in report.visual_tokens_per_layer or [[]] * depth],
            kv_tokens_per_layer=[self._spread(row, 0) for row in kv_tokens],
            kv_tokens_per_step=[self._spread(row, 0) for row in report.kv_tokens_per_step],
            # The last token of an answer is never stored.
            kv_bytes_full=report.kv_bytes_full
            + sum(untrimmed.nbytes(self.width + n - 1) for n in lengths if self.caches),
            prefill_flops_full=report.prefill_flops_full + len(lengths) * full,
            prefill_flops_per_sample=self._spread(report.prefill_flops_per_sample, 0),
            method_flops=self._spread(report.method_flops, 0),
            generated_tokens=max([report.generated_tokens, *lengths]),
            stages=[
                Stage(stage.layer, self._spread(stage.kept, []), self._spread(stage.merged, []))
                for stage in report.stages
            ],
            trace=self._traced(report.trace, depth),
            warnings=report.warnings if answered else [],
        )

    def _with_bytes(self, report: TrimReport, untrimmed: UntrimmedCache, longest: int) -> TrimReport:
        """Add what the untrimmed model would hold of the exited samples after each forward pass."""
        nothing = [0] * longest
        exited = [n for n, gone in zip(self.visual_tokens, self.exited, strict=True) if gone]
        visual = sum(map(untrimmed.nbytes, exited))
        full = enumerate(report.kv_bytes_full_per_step or nothing)
        return replace(
            report,
            kv_bytes_per_step=report.kv_bytes_per_step or nothing,
            kv_bytes_full_per_step=[own + len(exited) * untrimmed.nbytes(self.width + step) for step, own in full],
            kv_visual_bytes_per_step=report.kv_visual_bytes_per_step or nothing,
            kv_visual_bytes_full_per_step=[own + visual for own in report.kv_visual_bytes_full_per_step or nothing],
        )

    def _traced(self, trace: Trace | None, layers: int) -> Trace | None:
        if trace is None:
            return None
        answered = iter(trace.samples)
        samples = (
            SampleTrace.unseen(n, layers, "a guide has answered this sample alone") if gone else next(answered)
            for n, gone in zip(self.visual_tokens, self.exited, strict=True)
        )
        return replace(trace, samples=tuple(samples))

    def _spread(self, values: Sequence[T], nothing: T) -> list[T]:
        """Values of all samples, of which the given ones are those that the model answered."""
        given = iter(values)
        return [nothing if gone else next(given) for gone in self.exited]
