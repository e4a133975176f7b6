"""Tokens that a trimmed generation removed, and the tokens that it should hold by its method's plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vistrim.checking.generations import Generated, LayerCache
from vistrim.checking.masked_model import Hidden
from vistrim.engine.report.trim_report import TrimReport
from vistrim.methods import Method
from vistrim.methods.base.attention_schedule import AttentionSchedule


@dataclass(frozen=True)
class Sample:
    """Positions of the tokens of one sample in its batch.

    Attributes
    ----------
    number : int
        Index of the sample in the batch.
    padding : int
        Number of padding tokens before its first token.
    prompt : int
        Number of its tokens.
    visual : tuple of int
        Positions of its visual tokens, without padding; tokens that are never removed are left out.
    """

    number: int
    padding: int
    prompt: int
    visual: tuple[int, ...]


def hidden_from(generated: Generated, report: TrimReport, sample: Sample) -> Hidden:
    """Tokens missing from the cache of each layer when each token was processed.

    In layers with a sliding window, which removes tokens by itself, the tokens cut in prefill are read from the report.
    """
    found: list[list[frozenset[int]]] = []
    for step, layers in enumerate(generated.caches):
        everything = range(sample.prompt + step)
        now = []
        for at, layer in enumerate(layers):
            held = frozenset(slot - sample.padding for slot in layer.slots[sample.number])
            if not layer.slides:
                gone = frozenset(everything) - held
            elif step == 0:
                kept = {sample.visual[i] for i in kept_at(report, at, sample)}
                gone = frozenset(sample.visual) - kept
            else:
                # Tokens before the first one were removed by the window, which the stock mask covers.
                since = min(held)
                gone = found[-1][at] | {place for place in sample.visual if place > since and place not in held}
            now.append(gone)
        found.append(now)
    return found


def kept_at(report: TrimReport, layer: int, sample: Sample) -> Collection[int]:
    """Indices of the visual tokens that a layer processed in prefill, by the report."""
    kept: Collection[int] = range(len(sample.visual))
    for stage in report.stages:
        if stage.layer <= layer:
            kept = stage.kept[sample.number]
    return kept


def agreement(one: TrimReport, sample: int, other: TrimReport) -> float:
    """Share of the tokens kept for a sample in a batch that were also kept for the sample alone, over all cuts."""
    common = total = 0
    for ours, alone in zip(one.stages, other.stages, strict=True):
        kept = set(ours.kept[sample])
        common += len(kept & set(alone.kept[0]))
        total += max(len(kept), len(alone.kept[0]))
    return common / total if total else 1.0


def planned_columns(
    method: Method, report: TrimReport, sample: Sample, stock: Sequence[Sequence[LayerCache]]
) -> list[list[int]]:
    """Columns that each layer should hold after each forward pass over one sample.

    Parameters
    ----------
    method : Method
        An `AttentionSchedule`, or a method that acts only before the decoder.
    report : TrimReport
        Source of the number of tokens kept before the decoder, which depends on the size of each image.
    sample : Sample
        The sample, alone in its batch.
    stock : sequence of sequence of LayerCache
        Caches of the untouched model; a layer with a sliding window holds no more than these.
    """
    depth, n = len(stock[0]), len(sample.visual)
    text = sample.prompt - n
    entered = len(kept_at(report, 0, sample))
    kept: list[int] = []
    planned = []
    for layer in range(depth):
        cut = method.tokens_kept(n, layer, 0, depth) if layer and isinstance(method, AttentionSchedule) else entered
        kept.append(min(cut, kept[-1] if kept else n))
    for step, layers in enumerate(stock):
        if step and isinstance(method, AttentionSchedule) and method.acts_in_decode and method.is_due(step):
            for at, cached in enumerate(layers):
                # Once a window is full, it removes tokens by itself, and annealing ends.
                if not cached.slides or cached.columns == sample.prompt + step:
                    kept[at] = min(kept[at], method.tokens_kept(n, at, step, depth))
        planned.append([min(text + step + k, layer.columns) for k, layer in zip(kept, layers, strict=True)])
    return planned
