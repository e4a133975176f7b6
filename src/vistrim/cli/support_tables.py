"""Support for a model, as tables for the terminal."""

from rich.table import Column, Table
from rich.text import Text

from vistrim.processor_packages import INSTALL
from vistrim.support import ModelSupport

COLORS = {"yes": "green", "needs": "yellow", "no": "red"}


def facts_table(found: ModelSupport) -> Table:
    """The model's family and sizes."""
    tested = (
        "tested" if found.tested else "not among vistrim's tested families: compare with the untouched model's answers"
    )
    sizes = f"{found.layers} layers, hidden size {found.hidden}, {found.heads} heads, {found.kv_heads} KV heads"
    grid = "of several sizes, or not known" if found.grid is None else "{} x {} tokens".format(*found.grid)
    lines = {
        "model": found.model,
        "family": f"{found.model_type} ({tested})",
        "decoder": sizes,
        "RoPE": "one axis" if found.rope_axes == 1 else f"{found.rope_axes} axes (M-RoPE)",
        "sliding windows": _windows(found),
        "visual tokens": ", ".join(found.modalities),
        "grid of an image": grid,
        "vision tower": "can be read"
        if found.reads_tower
        else "cannot be read: its mapping to visual tokens is not known",
    }
    if found.missing_packages:
        lines["processor"] = f"needs {' and '.join(found.missing_packages)}: {INSTALL}"
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines.items():
        table.add_row(Text(label), Text(value))
    return table


def methods_table(found: ModelSupport) -> Table:
    """The methods that run with their default parameters, and the reasons why others do not."""
    table = Table(
        Column("method", no_wrap=True),
        Column("acts in", overflow="fold"),
        Column("runs", no_wrap=True),
        Column("reason or requirement", overflow="fold"),
    )
    for method in found.methods:
        runs = Text(method.runs, style=COLORS[method.runs])
        table.add_row(Text(method.name), ", ".join(method.stages), runs, Text(method.reason))
    return table


def _windows(found: ModelSupport) -> str:
    sizes = sorted({window for window in found.windows if window is not None})
    if not sizes:
        return "none"
    pieces = []
    for size in sizes:
        layers = [layer for layer, window in enumerate(found.windows) if window == size]
        where = "all layers" if len(layers) == found.layers else f"layers {', '.join(map(str, layers))}"
        pieces.append(f"{size} tokens in {where}")
    return "; ".join(pieces)
