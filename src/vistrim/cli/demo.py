"""``vistrim demo``: a page that compares methods with the untouched model, in the browser."""

import threading
import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer

from vistrim.cli.loading_options import Device, Dtype
from vistrim.cli.serve import LOCAL, check_packages, listen
from vistrim.serving.address import free_port

METHODS = ("st3", "fastv", "pyramiddrop", "divprune", "vispruner", "visionzip", "pool", "uniform", "random", "blind")
"""Methods whose parameters can be set on the page."""
SHOWN = ("st3@tokens=0.33", "fastv@tokens=0.33", "divprune@tokens=0.33")
"""Methods and budgets in the link that is opened."""


def demo(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Reference model, local directory or Hugging Face id. By default reference-lm if it is installed, "
            "otherwise reference.",
            metavar="MODEL",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the link without opening the browser.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Compare methods with the untouched model in the browser.

    For another address, a list of methods, a budget or an API key, use vistrim serve --demo.

    Example: vistrim demo llava-hf/llava-1.5-7b-hf
    """
    check_packages()
    free_port(LOCAL[0], port)
    # Imported late: torch and transformers take seconds, and --help needs neither.
    from pathlib import Path

    from vistrim.cli.models import check_loading, load_model
    from vistrim.serving.app import create_app
    from vistrim.serving.engine import Engine
    from vistrim.serving.limits import Limits
    from vistrim.serving.server import set_up_log

    check_loading(dtype, device)
    model = model or _best_installed()
    set_up_log()
    loaded, processor = load_model(model, dtype, device)
    limits = Limits(trace=True)
    app = create_app(
        Engine(loaded, processor),
        processor,
        name=Path(model).name,
        allowed=METHODS,
        limits=limits,
        demo=True,
    )

    def announce(url: str) -> None:
        link = f"{url}/demo#{urlencode([('method', shown) for shown in SHOWN])}"
        typer.echo(f"demo of {Path(model).name} at {link}")
        if not no_open:
            # Text browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()

    listen(app, LOCAL[0], port, limits.deadline, announce)


def _best_installed() -> str:
    """Return the better reference model that can be loaded."""
    from vistrim.errors import LoadError
    from vistrim.shipped import PUT_TOGETHER, weights_path

    try:
        weights_path(PUT_TOGETHER)
    except LoadError:
        return "reference"
    return PUT_TOGETHER
