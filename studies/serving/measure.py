"""Requests per second and time to first token of the server, untouched and trimmed in one run.

Clients send requests over HTTP, each the next one as soon as it has an answer. In each round and at each concurrency,
the methods take turns, so that drift of the machine's speed affects all alike.

    python -m studies.serving.measure --model reference-lm --minutes 5 --out studies/serving/results/reference-lm.json
    python -m studies.serving.measure --shape llava-1.5-7b --layers 4 --per-client 1 --minutes 8 \
        --out studies/serving/results/llava-1.5-7b.json

``--minutes`` ends a run before the next round or concurrency. The same command resumes; without ``--minutes`` it ends
after ``--rounds``. ``--report`` writes the table beside ``--out`` again.
"""

import argparse
import asyncio
import base64
import json
import math
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

import vistrim
from studies.record import record
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.subject import Wanted
from vistrim.methods.base.notation import parse_method
from vistrim.serving.app import create_app
from vistrim.serving.engine import Engine
from vistrim.serving.limits import Limits
from vistrim.serving.server import Server

NAME = "model"
QUESTION = "describe the image ."
PACING = ("out", "minutes", "rounds", "report")
"""Options that may differ when a run is resumed."""


@dataclass(frozen=True)
class Row:
    """The requests of one method at one concurrency in one round.

    Attributes
    ----------
    round, concurrency : int
        When.
    method : str
        Method, or "untouched".
    seconds : float
        From the first request to the last answer.
    first_tokens : list of float
        Seconds to the first token of each request.
    batch_sizes : list of int
        Size of the batch of each request.
    average_tokens : float
        Visual tokens per layer in prefill.
    """

    round: int
    concurrency: int
    method: str
    seconds: float
    first_tokens: list[float]
    batch_sizes: list[int]
    average_tokens: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.first_tokens) / self.seconds


@dataclass(frozen=True)
class Asked:
    """One request: seconds to its first token, and the server's figures."""

    first_token: float
    figures: dict[str, Any]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference-lm")
    parser.add_argument("--shape", help="random weights of this shape instead, with the tokenizer of `reference`")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--method", action="append")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-client", type=int, default=2, help="requests of each client in a round")
    parser.add_argument("--minutes", type=float, help="begin nothing after this time")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="only write the table")
    options = parser.parse_args()
    stored = json.loads(options.out.read_text()) if options.out.exists() else None
    rows = [Row(**row) for row in stored["rows"]] if stored else []
    if not options.report:
        if stored and _fixed(stored["settings"]) != _fixed(vars(options)):
            parser.error(f"{options.out} has other settings: use another --out")
        torch.set_num_threads(options.threads)
        _run(options, rows)
    text = table(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in PACING}


def _run(options: argparse.Namespace, rows: list[Row]) -> None:
    model, processor = _make(options) if options.shape else vistrim.load(options.model, device="cpu")
    # All answers have the same length.
    model.generation_config.eos_token_id = None
    served = {text: parse_method(text) for text in options.method or ["st3:preset=compact"]}
    engine = Engine(model, processor, batch_size=options.batch_size, wait_seconds=0.02)
    limits = Limits(deadline=3600)
    app = create_app(engine, processor, name=NAME, served=served, limits=limits, batch_size=max(options.concurrency))
    urls: Queue[str] = Queue()
    server = Server(app, "127.0.0.1", 0, 10, urls.put)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        asyncio.run(_measure(urls.get(), [UNTOUCHED, *served], options, rows))
    finally:
        server.should_exit = True
        thread.join()


def _make(options: argparse.Namespace) -> tuple[Any, Any]:
    """Make a model with random weights, and a processor for its image size."""
    wanted = Wanted(options.shape, layers=options.layers, hidden=options.hidden, dtype=options.dtype, device="cpu")
    model = make_subject(wanted).model
    _, processor = vistrim.load("reference", device="cpu")
    side, patch = model.config.vision_config.image_size, model.config.vision_config.patch_size
    processor.image_processor.size = processor.image_processor.crop_size = {"height": side, "width": side}
    processor.patch_size = patch
    model.config.image_token_id = processor.image_token_id
    return model, processor


async def _measure(url: str, methods: Sequence[str], options: argparse.Namespace, rows: list[Row]) -> None:
    done = {(row.round, row.concurrency) for row in rows}
    ends = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    async with httpx.AsyncClient(base_url=f"{url}/v1/", timeout=None) as client:
        for method in methods:
            await _ask(client, method, 0, 2)
        for number in range(options.rounds):
            for concurrency in options.concurrency:
                if (number, concurrency) in done:
                    continue
                if time.monotonic() >= ends:
                    return
                first = number % len(methods)
                turns = (*methods[first:], *methods[:first])
                rows += [await _turn(client, method, number, concurrency, options) for method in turns]
                record(options, rows=[asdict(row) for row in rows])


async def _turn(
    client: httpx.AsyncClient, method: str, number: int, concurrency: int, options: argparse.Namespace
) -> Row:
    async def one(i: int) -> list[Asked]:
        images = range(i * options.per_client, (i + 1) * options.per_client)
        return [await _ask(client, method, image, options.new_tokens) for image in images]

    began = time.perf_counter()
    answers = list(chain.from_iterable(await asyncio.gather(*map(one, range(concurrency)))))
    seconds = time.perf_counter() - began
    return Row(
        number,
        concurrency,
        method,
        seconds,
        [each.first_token for each in answers],
        [each.figures["batch_size"] for each in answers],
        statistics.mean(each.figures["average_tokens"] for each in answers),
    )


async def _ask(client: httpx.AsyncClient, method: str, number: int, new_tokens: int) -> Asked:
    """Send a request, whose answer has so many tokens."""
    content = [{"type": "image_url", "image_url": {"url": _image(number)}}, {"type": "text", "text": QUESTION}]
    body = {
        "model": f"{NAME}:{method}",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": new_tokens,
        "temperature": 0,
        "stream": True,
        # Each token has an event, although random weights write parts of characters.
        "logprobs": True,
    }
    times: list[float] = []
    figures: dict[str, Any] = {}
    began = time.perf_counter()
    async with client.stream("POST", "chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            found = json.loads(line.removeprefix("data: "))
            if "error" in found:
                raise RuntimeError(found)
            if found["choices"][0]["logprobs"]:
                times.append(time.perf_counter())
            figures = found.get("vistrim", figures)
    if len(times) != new_tokens:
        raise RuntimeError(f"{len(times)} tokens instead of {new_tokens}")
    return Asked(times[0] - began, figures)


def _image(number: int) -> str:
    colors = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(colors).resize((336, 336)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def table(rows: Sequence[Row]) -> str:
    """Return the table of all rounds, in Markdown.

    Rates are medians over the rounds, and so are their ratios to the untouched model in the same round. Times to the
    first token are quantiles over all requests.
    """
    lines = [
        "| concurrency | method | visual tokens per layer | rounds | requests | requests/s | of untouched "
        "| first token p50, s | p95, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rates = {(row.round, row.concurrency, row.method): row.rate for row in rows}
    sides = dict.fromkeys((row.concurrency, row.method) for row in rows)
    for concurrency, method in sorted(sides, key=lambda side: side[0]):
        found = [row for row in rows if (row.concurrency, row.method) == (concurrency, method)]
        ratio = statistics.median(row.rate / rates[row.round, concurrency, UNTOUCHED] for row in found)
        firsts = [first for row in found for first in row.first_tokens]
        cells = (
            str(concurrency),
            method,
            f"{found[0].average_tokens:.0f}",
            str(len(found)),
            str(len(firsts)),
            f"{statistics.median(row.rate for row in found):.3f}",
            f"{ratio:.2f}x",
            f"{np.quantile(firsts, 0.5):.2f}",
            f"{np.quantile(firsts, 0.95):.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
