"""Progress display on standard error, if it is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Advance(Protocol):
    """Callback for progress: name of the bar, number of finished steps, and optionally a new text."""

    def __call__(self, name: str, by: float = 1, text: str | None = None) -> None:
        """Advance a bar."""


@contextmanager
def progress_bars(totals: Mapping[str, int], shown: bool = True) -> Iterator[Advance]:
    """Show a progress bar for each part of the work.

    Parameters
    ----------
    totals : mapping
        Number of steps of each bar, by name.
    shown : bool
        Whether to show the bars.

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
    """Show a view that is redrawn only on request, not by a thread that would disturb timings.

    Parameters
    ----------
    shown : bool
        Whether to show the view.

    Yields
    ------
    callable
        Takes a function that creates the new view. The function is called only if the view is shown.
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
    """Show a text while work of unknown duration is running."""
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
