"""What a trimmed generation has removed, and what its method's plan says that it should hold."""

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
    """Where the tokens of one sample are in its batch.

    Attributes
    ----------
    number : int
        Which sample it is.
    padding : int
        Places in front of its first token.
    prompt : int
        Its tokens.
    visual : tuple of int
        Places of its visual tokens, counted without padding; those that are never removed are left out.
    """

    number: int
    padding: int
    prompt: int
    visual: tuple[int, ...]


def hidden_from(generated: Generated, report: TrimReport, sample: Sample) -> Hidden:
    """Read off the cache what each layer had lost when each token was read.

    Where a sliding window forgets by itself, what was cut from the prompt is read off the report.
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
                # What lies before the first one was pushed out by the window, which the stock mask knows.
                since = min(held)
                gone = found[-1][at] | {place for place in sample.visual if place > since and place not in held}
            now.append(gone)
        found.append(now)
    return found


def kept_at(report: TrimReport, layer: int, sample: Sample) -> Collection[int]:
    """Numbers of the visual tokens that a layer ran on in prefill, by the report."""
    kept: Collection[int] = range(len(sample.visual))
    for stage in report.stages:
        if stage.layer <= layer:
            kept = stage.kept[sample.number]
    return kept


def agreement(one: TrimReport, sample: int, other: TrimReport) -> float:
    """Share of the tokens kept by a sample of a batch that were also kept by the sample alone, over all cuts."""
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
        An `AttentionSchedule`, or one that acts before the decoder alone.
    report : TrimReport
        Says how many tokens a method chose before the decoder, whose budget goes by the size of each image.
    sample : Sample
        The sample, alone in its batch.
    stock : sequence of sequence of LayerCache
        What the untouched model held; a layer that slides holds no more.
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
                # A window that is full forgets by itself, and annealing ends.
                if not cached.slides or cached.columns == sample.prompt + step:
                    kept[at] = min(kept[at], method.tokens_kept(n, at, step, depth))
        planned.append([min(text + step + k, layer.columns) for k, layer in zip(kept, layers, strict=True)])
    return planned
