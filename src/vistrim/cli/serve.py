"""``vistrim serve``: answer requests of OpenAI's chat API with trimmed models."""

import importlib.util
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistrim.cli.error_lines import CommandError, WrongUsageError
from vistrim.errors import MissingPackageError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vistrim.methods import Method

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
LOCAL = ("127.0.0.1", "::1", "localhost")
DRAIN_SECONDS = 5.0
"""Added to the deadline, so that all requests inside are answered before the server ends."""


def serve(
    model: Annotated[
        str, typer.Argument(help="Reference model, local directory or Hugging Face id.", metavar="MODEL")
    ] = "reference",
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method to serve; repeatable, the first is the default.", metavar="[LABEL=]NOTATION"),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A method whose parameters requests may set; repeatable.", metavar="NAME"),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when the server is ready.")] = False,
    dtype: Annotated[
        str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.", metavar="NAME")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", metavar="NAME")] = "auto",
) -> None:
    """Serve a trimmed model behind OpenAI's chat API.

    Example: vistrim serve llava-hf/llava-1.5-7b-hf --method st3:preset=compact --method fastv
    """
    check_packages()
    # Imported late: torch and transformers take seconds, and --help needs neither.
    from vistrim.cli.models import check_loading, load_model
    from vistrim.serving.app import create_app
    from vistrim.serving.engine import Engine
    from vistrim.serving.limits import Limits

    # Cheap checks come before the model is loaded.
    served = _served(method or ["st3"])
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
    set_up_log()
    loaded, processor = load_model(model, dtype, device)
    engine = Engine(loaded, processor, batch_size=batch_size, wait_seconds=wait / 1000)
    shown = name or Path(model).name
    try:
        app = create_app(
            engine,
            processor,
            name=shown,
            served=served,
            allowed=allow or (),
            limits=limits,
            batch_size=batch_size,
            api_key=api_key,
            is_local=host in LOCAL,
            open_metrics=open_metrics,
            demo=demo,
        )
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    if host not in LOCAL and api_key is None:
        typer.echo(f"note: everyone who reaches {host} can use this server: give an --api-key", err=True)

    def announce(url: str) -> None:
        if as_json:
            typer.echo(json.dumps({"url": f"{url}/v1", "model": shown, "methods": list(served)}))
        else:
            typer.echo(f"serving {shown} at {url}/v1" + (f", demo at {url}/demo" if demo else ""))

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
        raise MissingPackageError(f"the server needs {' and '.join(missing)}: run `pip install 'vistrim[serve]'`")


def set_up_log() -> None:
    """Log to standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def listen(app: "FastAPI", host: str, port: int, deadline: float, announce: Callable[[str], None]) -> None:
    """Serve an application until SIGTERM or SIGINT.

    Parameters
    ----------
    app : FastAPI
        The application.
    host : str
        Address to listen on.
    port : int
        Port. 0: any free port.
    deadline : float
        Seconds within which requests are answered.
    announce : callable
        Receives the URL when the server listens.

    Raises
    ------
    CommandError
        If the address or port cannot be used.
    """
    from vistrim.serving.server import Server

    try:
        Server(app, host, port, deadline + DRAIN_SECONDS, announce).run()
    except SystemExit as error:
        # uvicorn has logged the reason, for example that the port is in use.
        raise CommandError(f"cannot listen on {host}:{port}: use another --host or --port") from error


def _served(entries: list[str]) -> dict[str, "Method | None"]:
    """Read the server's list of methods, by label."""
    from vistrim.cli.parsing import parse_method
    from vistrim.serving.figures import UNTOUCHED

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
