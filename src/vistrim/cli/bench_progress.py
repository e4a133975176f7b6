"""What is known of a benchmark while it runs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vistrim.benchmark.progress import progress_line
from vistrim.benchmark.results import Cost, Row, Run
from vistrim.benchmark.speed_tables import tables
from vistrim.cli.terminal_tables import drawn

Advance = Callable[[Sequence[Run], Mapping[str, Cost]], None]


@contextmanager
def live_tables(
    labels: Collection[str], repeat: int, summarize: Callable[[Sequence[Run], Mapping[str, Cost]], list[Row]]
) -> Iterator[Advance]:
    """Show the tables on standard error while a benchmark runs, if that is a terminal.

    Parameters
    ----------
    labels : collection of str
        All that run in each round.
    repeat : int
        Rounds.
    summarize : callable
        Rows of runs and costs; none as long as too little is known.

    Yields
    ------
    callable
        To be told all finished runs and all known costs, whenever there are more.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda runs, costs: None
        return
    # A thread that refreshes the screen would take its time from the runs; the final tables go to standard output.
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def advance(runs: Sequence[Run], costs: Mapping[str, Cost]) -> None:
            rows = summarize(runs, costs)
            # The line comes first: a low terminal cuts off what comes last.
            line = Text(progress_line(runs, labels, repeat))
            live.update(Group(line, *map(drawn, tables(rows) if rows else [])), refresh=True)

        yield advance
