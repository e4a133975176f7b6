"""How far a benchmark is."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.text import Text

from vistrim._utils.progress import live_view
from vistrim.benchmark.results import Cost, Run
from vistrim.benchmark.speed_summary import summarize
from vistrim.benchmark.speed_tables import tables

Advance = Callable[[Sequence[Run], Mapping[str, Cost]], None]


@contextmanager
def live_tables(labels: Collection[str], repeat: int, *, shown: bool = True) -> Iterator[Advance]:
    """Show the tables on standard error while a benchmark runs, if that is a terminal.

    Parameters
    ----------
    labels : collection of str
        All that run in each round.
    repeat : int
        Rounds.
    shown : bool
        Whether to show them at all.

    Yields
    ------
    callable
        To be told all finished runs and all known costs, whenever there are more.
    """
    with live_view(shown) as show:

        def advance(runs: Sequence[Run], costs: Mapping[str, Cost]) -> None:
            def view() -> Group:
                rows = summarize(runs, costs)
                # The line comes first: a low terminal cuts off what comes last.
                return Group(Text(progress_line(runs, labels, repeat)), *(tables(rows) if rows else []))

            show(view)

        yield advance


def progress_line(runs: Sequence[Run], labels: Collection[str], repeat: int) -> str:
    """Round, method that ran last, and time left.

    Parameters
    ----------
    runs : sequence of Run
        Finished ones.
    labels : collection of str
        All that run in each round, the untouched model included.
    repeat : int
        Rounds.
    """
    if not runs:
        return f"round 1 of {repeat}: warming up"
    last = runs[-1]
    return (
        f"round {last.round + 1} of {repeat}: {last.method} done, run {len(runs)} of {repeat * len(labels)}, "
        f"about {_duration(seconds_left(runs, labels, repeat))} left"
    )


def seconds_left(runs: Sequence[Run], labels: Collection[str], repeat: int) -> float:
    """Seconds of the runs that are missing, each as long as its method's so far, or as all others if it has none."""
    times = {label: [run.total_seconds for run in runs if run.method == label] for label in labels}
    usual = _mean([run.total_seconds for run in runs])
    return sum(max(0, repeat - len(known)) * (_mean(known) if known else usual) for known in times.values())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
