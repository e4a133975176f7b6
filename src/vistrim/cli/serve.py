"""``vistrim serve``: answer requests of OpenAI's chat API with trimmed models."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistrim.cli.budgets import Budget, check_budget
from vistrim.cli.error_lines import CommandError, WrongUsageError
from vistrim.cli.loading_options import Device, Dtype
from vistrim.errors import MissingPackageError
from vistrim.serving.address import free_port

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vistrim.methods import Method

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[
        str, typer.Argument(help="Reference model, local directory or Hugging Face id.", metavar="MODEL")
    ] = "reference",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method to serve; repeatable, the first is the default.",
            show_default="st3, with the schedule beside the model if there is one",
            metavar="[LABEL=]NOTATION",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A method whose parameters requests may set; repeatable.", metavar="NAME"),
    ] = None,
    budget: Budget = None,
    name: Annotated[
        str | None, typer.Option(help="Name in model ids. By default the last part of MODEL.", metavar="NAME")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="VISTRIM_API_KEY", show_envvar=True, help="Key that requests must have.", metavar="KEY"),
    ] = None,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help="Show /metrics without the key.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Most requests that run together.")] = 8,
    wait: Annotated[
        float, typer.Option(min=0, help="Longest time that a request waits for others, in milliseconds.")
    ] = 10.0,
    queue: Annotated[int, typer.Option(min=1, help="Most waiting requests.")] = 64,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds within which a request is answered.")] = 120.0,
    max_answer_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, and the default.")] = 512,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt with images. By default the model's context.")
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, help="Most images of a request.")] = 8,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, help="Most pixels of the images of a request, in millions.")
    ] = 24.0,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest request, in MiB.")] = 20.0,
    allow_image_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host from which https images are downloaded; repeatable. By default, only base64 is read.",
            metavar="HOST",
        ),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Let requests ask for the trace of kept tokens.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Show the page /demo. Implies --trace.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            help="Serve with replicas on a Ray cluster: its address, auto, or local to start one here.",
            metavar="ADDRESS",
        ),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            help="Replicas of --ray; a range lets their number follow the load.",
            show_default="one per GPU, or per 8 cores without GPUs",
            metavar="NUMBER or MIN:MAX",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when the server is ready.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Serve a trimmed model behind OpenAI's chat API.

    Example: vistrim serve llava-hf/llava-1.5-7b-hf --method st3:preset=compact --method fastv
    """
    check_packages()
    if ray is None:
        free_port(host, port)
    # Imported late: torch and transformers take seconds, and --help needs neither.
    from vistrim.cli.models import check_loading, load_model
    from vistrim.cli.parsing import note_schedules
    from vistrim.methods import ST3
    from vistrim.serving.app import create_app
    from vistrim.serving.engine import Engine
    from vistrim.serving.limits import Limits
    from vistrim.serving.server import set_up_log

    # Cheap checks come before the model is loaded.
    served = _served(method or ())
    check_budget(budget)
    number = _replicas(replicas, ray)
    if ray is None:
        check_loading(dtype, device)
    if api_key is not None and not api_key:
        raise WrongUsageError("--api-key is empty: give a key, or leave it out")
    limits = Limits(
        body_bytes=round(max_megabytes * 2**20),
        images=max_images,
        pixels=round(max_megapixels * 1e6),
        prompt_tokens=max_prompt_tokens,
        answer_tokens=max_answer_tokens,
        queue=queue,
        deadline=deadline,
        trace=trace or demo,
        image_hosts=tuple(entry.lower() for entry in allow_image_host or ()),
    )
    shown = name or Path(model).name
    make_app = partial(
        create_app,
        name=shown,
        served=served,
        allowed=allow or (),
        budget=budget,
        limits=limits,
        batch_size=batch_size,
        api_key=api_key,
        is_local=host in LOCAL,
        open_metrics=open_metrics,
        demo=demo,
    )

    def announce(url: str) -> None:
        if as_json:
            typer.echo(json.dumps({"url": f"{url}/v1", "model": shown, "methods": list(served) or [ST3.name]}))
        else:
            typer.echo(f"serving {shown} at {url}/v1" + (f", demo at {url}/demo" if demo else ""))

    if host not in LOCAL and api_key is None:
        typer.echo(f"note: everyone who reaches {host} can use this server: give an --api-key", err=True)
    if ray is not None:
        from vistrim.integrations.ray import check_installed
        from vistrim.integrations.ray_serve import Replica, serve_on

        check_installed()
        replica = Replica(model, dtype, device, batch_size, wait / 1000, make_app)
        serve_on(ray, replica, number, host=host, port=port, limits=limits, announce=announce)
        return
    set_up_log()
    loaded, processor = load_model(model, dtype, device)
    note_schedules(map(str, served.values()), loaded)
    try:
        app = make_app(Engine(loaded, processor, batch_size=batch_size, wait_seconds=wait / 1000), processor)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    listen(app, host, port, deadline, announce)


def check_packages() -> None:
    """Refuse to start without the packages of the extra.

    Raises
    ------
    MissingPackageError
        If one is missing.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"the server needs {', '.join(missing)}: run `pip install 'vistrim[serve]'`")


def listen(app: "FastAPI", host: str, port: int, deadline: float, announce: Callable[[str], None]) -> None:
    """Run a `vistrim.serving.server.Server` until its end.

    Raises
    ------
    CommandError
        If the address or port cannot be used.
    """
    from vistrim.serving.server import Server

    try:
        Server(app, host, port, deadline, announce).run()
    except SystemExit as error:
        # uvicorn has logged the reason, for example that the port is in use by now.
        raise CommandError(f"cannot listen on {host}:{port}: use another port or address") from error


def _replicas(text: str | None, ray: str | None) -> tuple[int, int] | None:
    """Read the least and the largest number of replicas. None: as many as the cluster has room for."""
    if text is None:
        return None
    if ray is None:
        raise WrongUsageError("--replicas is only for --ray: add --ray local, or leave it out")
    least, colon, most = text.partition(":")
    numbers = (least, most if colon else least)
    if not all(number.isdecimal() for number in numbers) or not 1 <= int(numbers[0]) <= int(numbers[1]):
        raise WrongUsageError(f"--replicas {text}: give a number such as 2, or a range such as 1:4")
    return int(numbers[0]), int(numbers[1])


def _served(entries: Sequence[str]) -> dict[str, "Method | None"]:
    """Read the server's list of methods, by label."""
    from vistrim._utils.labels import UNTOUCHED
    from vistrim.cli.parsing import parse_method

    served: dict[str, Method | None] = {}
    for entry in entries:
        label, equals, notation = entry.partition("=")
        # In a notation, a colon comes before the first equals sign.
        if not equals or ":" in label:
            label, notation = entry, entry
        label = label.strip()
        if label in served:
            raise WrongUsageError(f"--method {label} is given twice: leave one out, or give it another label")
        served[label] = None if notation == UNTOUCHED else parse_method(notation)
    return served
