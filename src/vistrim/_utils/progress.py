"""How far a long piece of work is, on standard error and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Advance(Protocol):
    """To be told of progress: the bar's name, how much more is done, and optionally its new text."""

    def __call__(self, name: str, by: float = 1, text: str | None = None) -> None:
        """Move a bar."""


@contextmanager
def progress_bars(totals: Mapping[str, int], shown: bool = True) -> Iterator[Advance]:
    """Show a bar for each part of the work.

    Parameters
    ----------
    totals : mapping
        Steps of each bar, by its name.
    shown : bool
        Whether to show them at all.

    Yields
    ------
    callable
        See `Advance`.
    """
    console = _terminal()
    if not (shown and console.is_terminal):
        yield lambda name, by=1, text=None: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bars = {name: progress.add_task(escape(name), total=total) for name, total in totals.items()}

        def advance(name: str, by: float = 1, text: str | None = None) -> None:
            changed: dict[str, Any] = {} if text is None else {"description": escape(text)}
            progress.update(bars[name], advance=by, **changed)

        yield advance


@contextmanager
def live_view(shown: bool = True) -> Iterator[Callable[[Callable[[], RenderableType]], None]]:
    """Show a view that is drawn anew when it is told to, and by no thread, which would take time from what is timed.

    Parameters
    ----------
    shown : bool
        Whether to show it at all.

    Yields
    ------
    callable
        To be given a function that makes the new view; it is called only where the view is shown.
    """
    console = _terminal()
    if not (shown and console.is_terminal):
        yield lambda make: None
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda make: live.update(make(), refresh=True)


@contextmanager
def spinner(text: str, shown: bool = True) -> Iterator[None]:
    """Say what is being done, where it is not known how long it takes."""
    console = _terminal()
    if not (shown and console.is_terminal):
        yield
        return
    from rich.markup import escape

    with console.status(escape(text)):
        yield


def _terminal() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)
