"""Measurements of a trimmed generation."""

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
"""Figures derived from the measurements."""


@dataclass(frozen=True)
class Stage:
    """Visual tokens that remained from one layer of the prefill on.

    Attributes
    ----------
    layer : int
        First decoder layer that ran on these tokens only. 0: the cut was before the decoder.
    kept : list of list of int
        Indices of the kept tokens among the sample's visual tokens, in prompt order, per sample.
    merged : list of list of int
        Kept tokens that represent several tokens, because others were merged into them, per sample.
    """

    layer: int
    kept: list[list[int]]
    merged: list[list[int]]


@dataclass(frozen=True)
class TrimReport:
    """Measurements of one generation or bare forward pass of a trimmed model.

    Token counts and bytes are those of the tensors that were computed and stored. Times are wall times.

    A sample that exited with the answer of the guide model (`exited`) was not processed. Its token counts in layers and
    caches and its prefill FLOPs are 0, but it is included in the figures of the untrimmed model.

    Under tensor parallelism, each process has its own report. Bytes are those of its own heads, and FLOPs are those of
    all processes together.

    Attributes
    ----------
    model, method : str
        Name of the model, and notation of the method.
    visual_tokens : list of int
        Number of visual tokens in the prompt, per sample.
    prompt_tokens : list of int
        Number of all prompt tokens without padding, per sample.
    visual_tokens_per_layer : list of list of int
        Number of visual tokens that each decoder layer processed in prefill, per layer and sample.
    kv_tokens_per_layer : list of list of int
        Number of tokens in the KV cache of each layer at the end, per layer and sample. Empty without a cache.
    kv_tokens_per_step : list of list of int
        Number of tokens in the KV caches of all layers together after each forward pass, per pass and sample. The first
        pass is the prefill. Empty without a cache.
    kv_bytes_per_step : list of int
        Bytes of all keys and values after each forward pass. Empty without a cache.
    kv_bytes : int
        Bytes of all keys and values at the end, without the spare room of large caches (3 %).
    kv_bytes_peak : int
        Largest number of bytes held after any forward pass.
    kv_bytes_full : int
        Bytes that the untrimmed model would hold at the end, computed from shapes.
    kv_bytes_full_per_step : list of int
        Bytes that the untrimmed model would hold after each forward pass.
    kv_visual_bytes_per_step, kv_visual_bytes_full_per_step : list of int
        Bytes of the keys and values of visual tokens after each forward pass, and bytes that the untrimmed model would
        hold for them.
    prefill_flops, prefill_flops_full : int
        FLOPs of the decoder in prefill, trimmed and untrimmed (see `vistrim.core.costs`).
    prefill_flops_per_sample : list of int
        FLOPs of the trimmed decoder in prefill for each sample, as if it ran alone.
    method_flops : list of int
        FLOPs per sample of the method's own computation: routers, a compressor, or a guide model. For a guide model:
        its vision tower and projector, the prefill and decoding steps of its decoder and, for an exit score, the
        prefill of prompt and answer, all as if the sample ran alone. The KV cache of the guide model is not part of the
        report.
    vision_flops : int or None
        FLOPs of the vision tower and projector for the images encoded in this generation. Trimming does not change
        them. None: not known for this model.
    prefill_seconds : float
        Wall time of the decoder's prefill, including the selection but not the vision tower.
    decode_seconds_per_token : float or None
        Mean wall time per decoding step, including sampling. None if there was no decoding step.
    select_seconds : float
        Part of ``prefill_seconds`` spent on scoring, selecting and removing tokens.
    generated_tokens : int
        Number of new tokens of the longest returned sequence.
    stages : list of Stage
        Visual tokens kept in prefill.
    warnings : list of str
        Reasons for a small or no gain, and doubts about the result.
    guide_seconds : float
        Wall time of the guide model, including its vision tower. It runs before the large model.
    exited : list of bool
        Whether the answer of the guide model was returned instead of that of the large model, per sample.
    exit_scores : list of float
        Exit score of each sample. Empty without an exit threshold.
    trace : Trace or None
        Visual tokens that each layer held at each step, and their locations in the images. None unless `vistrim.trim`
        got ``trace=True``.
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
        """Visual tokens per layer in prefill, averaged over layers and samples."""
        counts = [n for layer in self.visual_tokens_per_layer for n in layer]
        return sum(counts) / len(counts) if counts else 0.0

    @property
    def kv_fraction_mean(self) -> float | None:
        """KV fraction, averaged over the forward passes.

        Bytes in the KV cache divided by those of the untrimmed model after the same forward pass. None without a cache.
        """
        return _mean(_shares(self.kv_bytes_per_step, self.kv_bytes_full_per_step))

    @property
    def kv_fraction_peak(self) -> float | None:
        """Largest KV fraction of all forward passes. None without a cache."""
        return max(_shares(self.kv_bytes_per_step, self.kv_bytes_full_per_step), default=None)

    @property
    def kv_visual_fraction_mean(self) -> float | None:
        """KV fraction of visual tokens only, averaged over the passes. None without a cache or visual tokens."""
        return _mean(_shares(self.kv_visual_bytes_per_step, self.kv_visual_bytes_full_per_step))

    @property
    def flops_fraction(self) -> float | None:
        """FLOPs of the decoder in prefill divided by those of the untrimmed model. None if these are 0."""
        return self.prefill_flops / self.prefill_flops_full if self.prefill_flops_full else None

    @property
    def exit_layers(self) -> list[int | None]:
        """First decoder layer that processed no visual token in prefill, per sample.

        None if all layers did, if the sample has no visual tokens, or if it exited with the answer of a guide model.
        """
        return [
            next((layer for layer, counts in enumerate(self.visual_tokens_per_layer) if not counts[sample]), None)
            if n and not answered
            else None
            for sample, (n, answered) in enumerate(zip(self.visual_tokens, self.exited, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python objects.

        Returns
        -------
        dict
            All attributes and derived figures, by name.
        """
        trace = self.trace.to_dict() if self.trace is not None else None
        derived = {name: getattr(self, name) for name in DERIVED}
        return asdict(replace(self, trace=None)) | derived | {"trace": trace}

    def to_json(self, indent: int | None = 2) -> str:
        """Convert to JSON.

        Parameters
        ----------
        indent : int or None
            Spaces per level of indentation. None: a single line.

        Returns
        -------
        str
            All attributes and derived figures.
        """
        return json.dumps(self.to_dict(), indent=indent)

    def rows(self) -> list[tuple[str, str]]:
        """Format the report.

        Returns
        -------
        list of tuple of str
            Label and value of each line of the printed report.
        """
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
                f"{1e3 * self.prefill_seconds:.1f} ms ({1e3 * self.select_seconds:.1f} ms of it to select tokens)",
            ),
        ]
        if self.decode_seconds_per_token is not None:
            lines.append(("decode", f"{1e3 * self.decode_seconds_per_token:.1f} ms per token"))
        if self.kv_fraction_mean is not None:
            lines += [
                ("KV cache at the end", f"{bytes_text(self.kv_bytes)} of {bytes_text(self.kv_bytes_full)}"),
                ("  peak", bytes_text(self.kv_bytes_peak)),
                ("  mean over steps", f"{100 * self.kv_fraction_mean:.1f} % of the untouched model's"),
            ]
        if self.kv_visual_fraction_mean is not None:
            share = f"{100 * self.kv_visual_fraction_mean:.1f} % of the untouched model's"
            lines.append(("  mean, visual tokens only", share))
        return [*lines, ("generated tokens", str(self.generated_tokens))]

    def _guide_rows(self) -> list[tuple[str, str]]:
        lines = [("guide", f"{1e3 * self.guide_seconds:.1f} ms")] if self.guide_seconds else []
        if self.exit_scores:
            scores = ", ".join(f"{score:.3f}" for score in self.exit_scores)
            lines.append(("  early exits", f"{sum(self.exited)} of {len(self.exited)} (scores {scores})"))
        return lines

    def _exit_rows(self) -> list[tuple[str, str]]:
        samples = zip(self.exit_layers, self.visual_tokens, self.exited, strict=True)
        exits = [layer for layer, n, answered in samples if n and not answered]
        if all(layer is None for layer in exits):
            return []
        return [("  no visual tokens from layer", ", ".join("never" if e is None else str(e) for e in exits))]

    def _flop_ratio(self) -> str:
        return f" ({self.prefill_flops_full / self.prefill_flops:.2f}x fewer)" if self.prefill_flops else ""

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.rows())
        lines = [f"{label:<{width}}  {value}" for label, value in self.rows()]
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        # Imported here because only rich calls this method.
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
