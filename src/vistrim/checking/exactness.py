"""The checks whose answer is right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vistrim._utils.units import bytes_text
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.checking.closeness import Tolerance, difference
from vistrim.checking.generations import Generated
from vistrim.checking.removed import agreement, hidden_from, planned_columns
from vistrim.checking.restoring import State, changes, state_of
from vistrim.checking.results import Status
from vistrim.checking.subject import NotPossibleError, Subject
from vistrim.engine.report.trim_report import TrimReport
from vistrim.methods import Method

Found = tuple[Status, str, dict[str, Any]]
"""How a check ended, what it found, and the numbers behind that."""

SAME_TOKENS = {torch.float64: 0.98, torch.float32: 0.98, torch.float16: 0.8, torch.bfloat16: 0.8}
"""Share of the kept tokens that a sample must have in common with itself in a batch, whose scores are rounded
differently: tokens of nearly equal scores may change places."""


def check_keep_everything(subject: Subject, again: Generated) -> Found:
    """A method that keeps everything against the untouched model, which is ``again`` run a second time."""
    stock = subject.untouched
    if not stock.equals(again):
        raise NotPossibleError(
            "the untouched model does not repeat itself bit by bit: two runs differ by "
            f"{difference(again.logits, stock.logits):.1e} of the largest logit"
        )
    kept, report = subject.trimmed(KeepEverything())
    figures = {
        "difference": difference(kept.logits, stock.logits),
        "tokens_equal": bool(torch.equal(kept.tokens, stock.tokens)),
    }
    if not kept.equals(stock):
        return "failed", f"logits differ by {figures['difference']:.1e} of the largest one", figures
    steps = stock.logits.shape[1]
    return (
        "passed",
        f"logits and tokens of all {steps} steps are identical ({report.visual_tokens[0]} visual tokens)",
        figures,
    )


def check_removal(subject: Subject, method: Method) -> Found:
    """A method against the untouched model at full length, in which what it has removed is hidden."""
    tolerance = subject.tolerance
    _refuse_blind(tolerance)
    generated, report = subject.trimmed(method)
    hidden = hidden_from(generated, report, subject.sample)
    figures: dict[str, Any] = {"method": report.method, "noise": tolerance.noise, "tolerance": tolerance.allowed}
    removed = [frozenset().union(*layers) for layers in hidden]
    if text := frozenset().union(*removed) - set(subject.sample.visual):
        return "failed", f"{method.name} removed {len(text)} tokens of text", figures
    if not any(removed):
        raise NotPossibleError(f"{method.name} removed nothing from {len(subject.sample.visual)} visual tokens")
    answer = generated.tokens[0]
    masked = subject.masked(subject.inputs, answer, hidden)
    worst = difference(generated.logits[0], masked)
    effect = difference(subject.masked(subject.inputs, answer), masked)
    figures |= {"difference": worst, "effect": effect}
    if worst > tolerance.allowed:
        return "failed", f"{method.name}: {_against(worst, tolerance)}; removing them changes {effect:.1e}", figures
    if effect <= tolerance.allowed:
        raise NotPossibleError(
            f"{method.name}: removing tokens changes the logits by {effect:.1e} of the largest one, which rounding "
            f"({tolerance.allowed:.1e}) hides: give another --image or --prompt"
        )
    return "passed", f"{method.name}: {_against(worst, tolerance)}; removing them changes {effect:.1e}", figures


def check_batch(subject: Subject, method: Method) -> Found:
    """Two prompts of different lengths in a batch, against each alone: the tokens kept, and what they make of them."""
    batch, alone = subject.pair
    width = batch["input_ids"].shape[1]
    stock = subject.generate(batch)
    noise = max(difference(stock.logits[b], subject.masked(own, stock.tokens[b])) for b, own in enumerate(alone))
    tolerance = Tolerance(subject.model.dtype, max(noise, subject.tolerance.noise))
    _refuse_blind(tolerance)
    with subject.under(method) as run:
        together = subject.generate(batch)
        report = run.report
        reports = [_report_alone(subject, own, run) for own in alone]
    worst, same, padding = 0.0, 1.0, []
    for b, own in enumerate(alone):
        sample = subject.sample_of(own, b, width)
        hidden = hidden_from(together, report, sample)
        worst = max(worst, difference(together.logits[b], subject.masked(own, together.tokens[b], hidden)))
        same = min(same, agreement(report, b, reports[b]))
        padding.append(sample.padding)
    figures = {
        "method": report.method,
        "noise": tolerance.noise,
        "tolerance": tolerance.allowed,
        "difference": worst,
        "kept_in_common": same,
        "padding": padding,
    }
    told = f"{method.name}: {_against(worst, tolerance)}; {100 * same:.1f} % of the kept tokens in common"
    right = worst <= tolerance.allowed and same >= SAME_TOKENS[subject.model.dtype]
    return "passed" if right else "failed", f"{told} ({max(padding)} tokens of padding)", figures


def check_bytes(subject: Subject, methods: Sequence[Method]) -> Found:
    """Bytes of keys and values after every forward pass against the plans of the methods that are possible."""
    stock = subject.untouched.caches
    full = sum(layer.nbytes for layer in stock[-1])
    figures: dict[str, Any] = {"untouched": full}
    for method in methods:
        try:
            generated, report = subject.trimmed(method)
        except NotPossibleError:
            continue
        planned = [
            sum(columns * (layer.nbytes // layer.columns) for columns, layer in zip(row, layers, strict=True))
            for row, layers in zip(planned_columns(method, report, subject.sample, stock), stock, strict=True)
        ]
        held = [sum(layer.nbytes for layer in layers) for layers in generated.caches]
        figures[report.method] = held[-1]
        if held != planned or report.kv_bytes_per_step != held:
            step = next(
                i for i, of in enumerate(zip(held, planned, report.kv_bytes_per_step, strict=True)) if len(set(of)) > 1
            )
            return (
                "failed",
                f"{method.name} holds {held[step]} bytes after pass {step}, the plan is {planned[step]}, "
                f"and the report says {report.kv_bytes_per_step[step]}",
                figures,
            )
    least = min(figures.values())
    return "passed", f"after every step; at the end {bytes_text(least)} at least, {bytes_text(full)} untouched", figures


def check_restored(subject: Subject, before: State) -> Found:
    """Nothing is left on the model, and it answers as it did before."""
    after = state_of(subject.model)
    # What the untouched model changes on itself was not noted.
    left = changes(before, {key: value for key, value in after.items() if key in before or "hooks" in key[1]})
    figures: dict[str, Any] = {"changed": left}
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        return "failed", f"not as before: {', '.join(left[:3])}{more}", figures
    stock, now = subject.untouched, subject.generate(subject.inputs)
    worst = difference(now.logits, stock.logits)
    figures |= {"difference": worst}
    if not now.equals(stock) and worst > subject.tolerance.allowed:
        return "failed", f"its logits differ by {worst:.1e} of the largest one", figures
    same = "answers bit by bit as before" if now.equals(stock) else f"answers as before but for {worst:.1e}"
    return "passed", f"hooks, methods, kernels and weights are the same; it {same}", figures


def _report_alone(subject: Subject, inputs: Any, run: Any) -> TrimReport:
    subject.generate(inputs)
    return run.report


def _against(worst: float, tolerance: Tolerance) -> str:
    return (
        f"at most {worst:.1e} of the largest logit from the masked model, {tolerance.allowed:.1e} allowed "
        f"(untouched against itself: {tolerance.noise:.1e})"
    )


def _refuse_blind(tolerance: Tolerance) -> None:
    if tolerance.is_blind:
        raise NotPossibleError(
            f"the untouched model differs from itself by {tolerance.noise:.1e} of the largest logit between decoding "
            "with a cache and one pass without: nothing can be told apart"
        )
