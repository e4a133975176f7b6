"""Requests per second and time to first token of the server, untouched and trimmed in one run.

Clients send requests over HTTP, each the next one as soon as it has an answer. At each concurrency, the methods take
turns in rounds, so that drift of the machine's speed affects all alike.

    python -m studies.serving.measure --model reference-lm --out studies/serving/results/reference-lm.json
    python -m studies.serving.measure --shape llava-1.5-7b --layers 4 --out studies/serving/results/llava-1.5-7b.json
"""

import argparse
import asyncio
import base64
import json
import statistics
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vistrim
from studies.record import record
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.subject import Wanted
from vistrim.methods.base.notation import parse_method
from vistrim.serving.app import create_app
from vistrim.serving.engine import Engine
from vistrim.serving.figures import UNTOUCHED
from vistrim.serving.limits import Limits
from vistrim.serving.server import Server

NAME = "model"
QUESTION = "describe the image ."


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
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

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
    found = asyncio.run(_measure(urls.get(), [UNTOUCHED, *served], options))
    server.should_exit = True
    thread.join()

    table = Table("concurrency", "method", "requests/s", "of untouched", "first token p50, s", "p95, s")
    for row in found:
        table.add_row(
            str(row["concurrency"]),
            row["method"],
            f"{row['requests_per_second']:.3f}",
            f"{row['ratio']:.2f}x",
            f"{row['first_token_p50']:.2f}",
            f"{row['first_token_p95']:.2f}",
        )
    Console().print(table)
    record(options, rows=found)


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


async def _measure(url: str, methods: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    async with httpx.AsyncClient(base_url=f"{url}/v1/", timeout=None) as client:
        for method in methods:
            await _ask(client, method, 0, 2)
        for concurrency in options.concurrency:
            rates: dict[str, list[float]] = {method: [] for method in methods}
            firsts: dict[str, list[float]] = {method: [] for method in methods}
            for number in range(options.rounds):
                first = number % len(methods)
                for method in (*methods[first:], *methods[:first]):
                    began = time.perf_counter()
                    times = await asyncio.gather(
                        *(_client(client, method, i, options.new_tokens) for i in range(concurrency))
                    )
                    requests = [each for one in times for each in one]
                    rates[method].append(len(requests) / (time.perf_counter() - began))
                    firsts[method] += requests
            for method in methods:
                pairs = zip(rates[method], rates[UNTOUCHED], strict=True)
                found.append(
                    {
                        "concurrency": concurrency,
                        "method": method,
                        "requests_per_second": statistics.median(rates[method]),
                        "ratio": statistics.median(a / b for a, b in pairs),
                        "first_token_p50": float(np.quantile(firsts[method], 0.5)),
                        "first_token_p95": float(np.quantile(firsts[method], 0.95)),
                    }
                )
    return found


async def _client(client: httpx.AsyncClient, method: str, number: int, new_tokens: int) -> list[float]:
    """Send two requests, one after the other. Returns the times to their first tokens."""
    return [await _ask(client, method, 2 * number + i, new_tokens) for i in range(2)]


async def _ask(client: httpx.AsyncClient, method: str, number: int, new_tokens: int) -> float:
    """Send a request. Returns the time to its first token."""
    content = [{"type": "image_url", "image_url": {"url": _image(number)}}, {"type": "text", "text": QUESTION}]
    body = {
        "model": f"{NAME}:{method}",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": new_tokens,
        "temperature": 0,
        "stream": True,
    }
    began, first = time.perf_counter(), None
    async with client.stream("POST", "chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if first is None and line:
                first = time.perf_counter() - began
            if '"error"' in line[:20]:
                raise RuntimeError(json.loads(line.removeprefix("data: ")))
    assert first is not None
    return first


def _image(number: int) -> str:
    colors = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(colors).resize((336, 336)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    main()
