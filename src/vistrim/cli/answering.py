"""Where predictors run: in this process, or with ``--ray`` on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vistrim.cli.error_lines import WrongUsageError

if TYPE_CHECKING:
    from vistrim.batching.answering import Answerer
    from vistrim.batching.predictor import Predictor

    Identify = Callable[[Predictor], dict[str, str]]

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Answer on a Ray cluster, in one process per GPU: its address, auto, or local to start one here.",
        metavar="ADDRESS",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        "--actors", min=1, help="Processes of --ray.", show_default="one per GPU, or per 8 cores without GPUs"
    ),
]


@contextmanager
def answering(ray: str | None, actors: int | None, batch_size: int) -> Iterator[tuple[Identify, Answerer]]:
    """Ways to identify predictors and to run them.

    Parameters
    ----------
    ray : str or None
        Address of a cluster; None for this process.
    actors : int or None
        Processes of the cluster.
    batch_size : int
        Prompts per batch.

    Raises
    ------
    WrongUsageError
        If actors are given without a cluster.
    ClusterError
        If the cluster cannot be reached.
    MissingPackageError
        If Ray is not installed.
    """
    if ray is None:
        from vistrim.batching.answering import in_process

        if actors is not None:
            raise WrongUsageError("--actors is only for --ray: add --ray local, or leave it out")
        yield _checked(_identify), in_process(batch_size)
        return
    from vistrim.integrations.ray import answer_on, check_installed, cluster, identity_on

    check_installed()
    with cluster(ray, actors) as pool:
        yield _checked(lambda predictor: identity_on(pool, predictor)), answer_on(pool, batch_size)


def _identify(predictor: Predictor) -> dict[str, str]:
    from vistrim._utils.progress import spinner
    from vistrim.cli.models import note_format, note_hub, silence_libraries
    from vistrim.cli.parsing import note_schedules
    from vistrim.loading import is_local
    from vistrim.prompting import prompt_format

    silence_libraries()
    note_hub(predictor.model)
    with spinner(f"loading {predictor.model}", shown=is_local(predictor.model)):
        found = predictor.identity()
    model, processor, _ = predictor.load()
    note_format(prompt_format(processor).name)
    note_schedules([predictor.method], model)
    return found


def _checked(identify: Identify) -> Identify:
    """Errors in a method's parameters or budget are errors of use."""

    def checked(predictor: Predictor) -> dict[str, str]:
        try:
            return identify(predictor)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error

    return checked
