"""Output of answers: in a terminal, in a pipe and as JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import TextStreamer

from vistrim.analysis import Comparison
from vistrim.analysis.comparison import Side
from vistrim.cli.asking import Answer

MIB = 1 << 20


def print_heading(console: Console, prompt: str) -> None:
    """Print the prompt above its answer."""
    console.print(Text(f"> {prompt}", style="bold"))


def terminal_streamer(console: Console, processor: Any) -> Callable[[Side | None], TextStreamer]:
    """Make streamers that print an answer during generation, with a heading if there are two answers."""

    def start(side: Side | None) -> TextStreamer:
        if side:
            console.print(Text(f"{side}:", style="dim"))
        return TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)

    return start


def print_text(console: Console, answer: Answer, streamed: bool, overlay: Path | None) -> None:
    """Print the answers, unless they were streamed, then comparison, report and path of the overlay."""
    if not streamed:
        if answer.untouched is not None:
            console.print(f"untouched: {answer.untouched}", soft_wrap=True)
            console.print(f"trimmed:   {answer.text}", soft_wrap=True)
        else:
            console.print(answer.text, soft_wrap=True)
    console.print()
    if answer.comparison is not None:
        console.print(_comparison_table(answer.comparison))
        console.print()
    console.print(answer.report)
    if overlay:
        console.print(f"overlay: {overlay}", soft_wrap=True)


def print_json(answer: Answer, images: Sequence[Path], overlay: Path | None) -> None:
    """Print everything on one line."""
    line: dict[str, Any] = {
        "prompt": answer.prompt,
        "images": [str(path) for path in images],
        "answer": answer.text,
        "overlay": str(overlay) if overlay else None,
        "report": answer.report.to_dict(),
    }
    if answer.comparison is not None:
        line |= {"untouched_answer": answer.untouched, "comparison": answer.comparison.to_dict()}
    typer.echo(json.dumps(line))


def _comparison_table(result: Comparison) -> Table:
    same = "same answer" if result.same_answer else "different answers"
    pairs = f"{result.repeats} interleaved pair{'s' * (result.repeats > 1)} of runs"
    table = Table(
        title=f"untouched and trimmed: {same}",
        title_justify="left",
        caption=f"times: medians of {pairs}; ratio: median of the ratios of the pairs",
        caption_justify="left",
    )
    table.add_column("")
    for column in ("untouched", "trimmed", "ratio"):
        table.add_column(column, justify="right")
    for label, value, ratio in (
        ("prefill", lambda m: _milliseconds(m.prefill_seconds), result.prefill_speedup),
        ("decode, per token", lambda m: _milliseconds(m.decode_seconds_per_token), result.decode_speedup),
        ("whole generation", lambda m: _milliseconds(m.total_seconds), result.total_speedup),
        ("KV cache at the end", lambda m: f"{m.kv_bytes / MIB:.2f} MiB", _kv_ratio(result)),
        ("generated tokens", lambda m: str(len(m.tokens)), None),
    ):
        table.add_row(label, value(result.untouched), value(result.trimmed), "" if ratio is None else f"{ratio:.2f}x")
    return table


def _kv_ratio(result: Comparison) -> float | None:
    return result.untouched.kv_bytes / result.trimmed.kv_bytes if result.trimmed.kv_bytes else None


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1e3 * seconds:.1f} ms"
