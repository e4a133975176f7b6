"""What a trimmed generation did, measured."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from vistrim._utils.units import bytes_text
from vistrim.engine.report.trace import Trace

DERIVED = (
    "average_tokens",
    "exit_layers",
    "kv_fraction_mean",
    "kv_fraction_peak",
    "kv_visual_fraction_mean",
    "flops_fraction",
)
"""Figures that follow from the measurements."""


@dataclass(frozen=True)
class Stage:
    """Visual tokens that were left from one layer of the prefill on.

    Attributes
    ----------
    layer : int
        First decoder layer that ran on these tokens only; 0 is "before the LLM".
    kept : list of list of int
        Per sample: indices of the kept tokens among the sample's visual tokens, in prompt order.
    merged : list of list of int
        Those of them that stand for several tokens, because others were merged into them.
    """

    layer: int
    kept: list[list[int]]
    merged: list[list[int]]


@dataclass(frozen=True)
class TrimReport:
    """Measurements of one generation (or of one bare forward pass) under `vistrim.trim`.

    Token counts and bytes are read from the tensors that were really computed and stored, times from the clock.

    A sample that a guide has answered alone (`exited`) was not processed and holds nothing: its token counts at layers
    and in caches are 0, and so are its FLOPs in prefill. It counts in the figures of the untrimmed model.

    Under tensor parallelism each process has a report of its own: bytes are those of its own heads, and FLOPs those of
    all processes together.

    Attributes
    ----------
    model, method : str
        What ran.
    visual_tokens : list of int
        Visual tokens in the prompt, per sample.
    prompt_tokens : list of int
        All prompt tokens without padding, per sample.
    visual_tokens_per_layer : list of list of int
        Visual tokens that each decoder layer processed in prefill, per layer and sample.
    kv_tokens_per_layer : list of list of int
        Tokens in each layer's KV cache at the end, per layer and sample; empty without a cache.
    kv_tokens_per_step : list of list of int
        Tokens in all layers' KV caches together after each forward pass, per pass and sample; the first pass is the
        prefill. Empty without a cache.
    kv_bytes_per_step : list of int
        Bytes of all keys and values after each forward pass, likewise.
    kv_bytes : int
        Bytes of all keys and values at the end, without the room that large caches keep behind them to grow (3 %).
    kv_bytes_peak : int
        Largest number of bytes held after any forward pass.
    kv_bytes_full : int
        Bytes the untrimmed model would hold at the end: exact, by shape.
    kv_bytes_full_per_step : list of int
        Bytes the untrimmed model would hold after each forward pass.
    kv_visual_bytes_per_step, kv_visual_bytes_full_per_step : list of int
        The same for the keys and values of visual tokens alone: held, and by the untrimmed model.
    prefill_flops, prefill_flops_full : int
        FLOPs of the decoder in prefill, as run and untrimmed (definition: `vistrim.core.costs`).
    prefill_flops_per_sample : list of int
        FLOPs of the decoder in prefill, as run, that each sample would take in a batch of its own.
    method_flops : list of int
        FLOPs per sample of what the method itself computes beside the decoder: routers, a compressor, a guide. Of a
        guide: its vision tower and projector, its decoder's prefill and decoding steps and, for an exit score, the
        prefill of prompt and answer, all as for the sample alone; its own KV cache appears nowhere.
    vision_flops : int or None
        FLOPs of the vision tower and projector for the images encoded in this generation, which trimming does not
        change; None: not known for this model.
    prefill_seconds : float
        Wall time of the decoder's prefill, selection included; vision tower not included.
    decode_seconds_per_token : float or None
        Mean wall time per decoding step, sampling included; None if there was no decoding step.
    select_seconds : float
        Part of ``prefill_seconds`` spent on scoring, choosing and compacting.
    generated_tokens : int
        New tokens per returned sequence (the longest one).
    stages : list of Stage
        Which visual tokens were kept in prefill.
    warnings : list of str
        Reasons why little or nothing was gained.
    guide_seconds : float
        Wall time of the guide, before the model begins: all that it computes, vision tower included.
    exited : list of bool
        Per sample: whether the guide's answer was returned and the model not asked.
    exit_scores : list of float
        Per sample: what decided on that; empty if nothing was to be decided.
    trace : Trace or None
        Which visual tokens each layer held at each step, and where they lie on their images, if `vistrim.trim` was
        asked for it.
    """

    model: str
    method: str
    visual_tokens: list[int]
    prompt_tokens: list[int]
    visual_tokens_per_layer: list[list[int]]
    kv_tokens_per_layer: list[list[int]]
    kv_tokens_per_step: list[list[int]]
    kv_bytes_per_step: list[int]
    kv_bytes: int
    kv_bytes_peak: int
    kv_bytes_full: int
    kv_bytes_full_per_step: list[int]
    kv_visual_bytes_per_step: list[int]
    kv_visual_bytes_full_per_step: list[int]
    prefill_flops: int
    prefill_flops_full: int
    prefill_flops_per_sample: list[int]
    method_flops: list[int]
    vision_flops: int | None
    prefill_seconds: float
    decode_seconds_per_token: float | None
    select_seconds: float
    generated_tokens: int
    stages: list[Stage]
    warnings: list[str]
    guide_seconds: float
    exited: list[bool]
    exit_scores: list[float]
    trace: Trace | None = None

    @property
    def average_tokens(self) -> float:
        """Visual tokens per layer in prefill: mean over layers and samples."""
        counts = [n for layer in self.visual_tokens_per_layer for n in layer]
        return sum(counts) / len(counts) if counts else 0.0

    @property
    def kv_fraction_mean(self) -> float | None:
        """Bytes held over bytes of the untrimmed model after the same forward pass, mean over the passes.

        None without a cache.
        """
        return _mean(_shares(self.kv_bytes_per_step, self.kv_bytes_full_per_step))

    @property
    def kv_fraction_peak(self) -> float | None:
        """The largest of these fractions; None without a cache."""
        return max(_shares(self.kv_bytes_per_step, self.kv_bytes_full_per_step), default=None)

    @property
    def kv_visual_fraction_mean(self) -> float | None:
        """The mean for the keys and values of visual tokens alone; None without a cache or visual tokens."""
        return _mean(_shares(self.kv_visual_bytes_per_step, self.kv_visual_bytes_full_per_step))

    @property
    def flops_fraction(self) -> float | None:
        """FLOPs of the decoder in prefill over those of the untrimmed model; None if it computes nothing."""
        return self.prefill_flops / self.prefill_flops_full if self.prefill_flops_full else None

    @property
    def exit_layers(self) -> list[int | None]:
        """Per sample: the first decoder layer that processed no visual token in prefill.

        None if all layers did, if there were none, or if a guide has answered.
        """
        return [
            next((layer for layer, counts in enumerate(self.visual_tokens_per_layer) if not counts[sample]), None)
            if n and not answered
            else None
            for sample, (n, answered) in enumerate(zip(self.visual_tokens, self.exited, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """All measurements as plain Python objects."""
        trace = self.trace.to_dict() if self.trace is not None else None
        derived = {name: getattr(self, name) for name in DERIVED}
        return asdict(replace(self, trace=None)) | derived | {"trace": trace}

    def to_json(self, indent: int | None = 2) -> str:
        """All measurements as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the printed report."""
        lines = [
            ("model", self.model),
            ("method", self.method),
            ("visual tokens", _each(self.visual_tokens)),
            ("  per layer, mean", f"{self.average_tokens:.1f}"),
            *self._exit_rows(),
            (
                "prefill FLOPs",
                f"{_flops(self.prefill_flops)} of {_flops(self.prefill_flops_full)}{self._flop_ratio()}",
            ),
            *([("  of the method itself", _flops(sum(self.method_flops)))] if any(self.method_flops) else []),
            *self._guide_rows(),
            (
                "prefill",
                f"{1e3 * self.prefill_seconds:.1f} ms (selection {1e3 * self.select_seconds:.1f} ms)",
            ),
        ]
        if self.decode_seconds_per_token is not None:
            lines.append(("decode", f"{1e3 * self.decode_seconds_per_token:.1f} ms per token"))
        if self.kv_fraction_mean is not None:
            lines += [
                ("KV cache at the end", f"{bytes_text(self.kv_bytes)} of {bytes_text(self.kv_bytes_full)}"),
                ("  peak", bytes_text(self.kv_bytes_peak)),
                ("  mean of untrimmed", f"{100 * self.kv_fraction_mean:.1f} %"),
            ]
        if self.kv_visual_fraction_mean is not None:
            lines.append(("  of visual tokens alone", f"{100 * self.kv_visual_fraction_mean:.1f} %"))
        return [*lines, ("generated tokens", str(self.generated_tokens))]

    def _guide_rows(self) -> list[tuple[str, str]]:
        lines = [("guide", f"{1e3 * self.guide_seconds:.1f} ms")] if self.guide_seconds else []
        if self.exit_scores:
            scores = ", ".join(f"{score:.3f}" for score in self.exit_scores)
            lines.append(("  answered alone", f"{sum(self.exited)} of {len(self.exited)} (scores {scores})"))
        return lines

    def _exit_rows(self) -> list[tuple[str, str]]:
        samples = zip(self.exit_layers, self.visual_tokens, self.exited, strict=True)
        exits = [layer for layer, n, answered in samples if n and not answered]
        if all(layer is None for layer in exits):
            return []
        return [("  withdrawn before layer", ", ".join("never" if e is None else str(e) for e in exits))]

    def _flop_ratio(self) -> str:
        return f" ({self.prefill_flops_full / self.prefill_flops:.2f}x fewer)" if self.prefill_flops else ""

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.rows())
        lines = [f"{label:<{width}}  {value}" for label, value in self.rows()]
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        # Only a terminal of rich asks for this.
        from vistrim.engine.report.rich_table import rich_table

        return rich_table(self.rows(), self.warnings)

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in self.rows())
        notes = "".join(f"<p>warning: {escape(w)}</p>" for w in self.warnings)
        return f"<table>{rows}</table>{notes}"


def _shares(held: list[int], full: list[int]) -> list[float]:
    return [part / whole for part, whole in zip(held, full, strict=True) if whole]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _each(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 and values else ", ".join(map(str, values)) or "none"


def _flops(n: int) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9)):
        if n >= size:
            return f"{n / size:.2f} {unit}FLOP"
    return f"{n / 1e6:.2f} MFLOP"
