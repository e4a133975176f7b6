"""Sends mixed requests to a server, and checks every answer.

``python -m tests.serving.soak --requests 1200``: long and short, with and without images, streamed, cancelled in the
middle, oversized, malformed and hostile. Good answers equal those of the same request alone, or first differ at a step
whose two best logits are close. Errors are those that the limits or injected faults explain.
"""

import argparse
import asyncio
import gc
import json
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

import vistrim
from tests.serving.running import Raises, data_url, image_url, message, scene, server
from tests.serving.test_http import bomb, file_of
from vistrim.serving.app import create_app
from vistrim.serving.engine import Engine
from vistrim.serving.limits import Limits

CLOSE = 1e-3
"""Distance of the two best logits below which a rounding error may change the token."""
MOST_CLOSE = 0.01
"""Share of good answers that may differ for this reason."""
GROWTH = 0.05
"""Share by which resident memory may grow after the first requests."""
FIRST = 200
QUESTIONS = ("describe the image .", "what color is the star ?", "how many shapes are there ?", "hello")


@dataclass
class Case:
    """A request, and the statuses that it may get. ``expected``: the answer must equal the one alone."""

    kind: str
    body: Any
    statuses: tuple[int, ...]
    expected: bool = False
    cancel_after: float | None = None


@dataclass
class Outcome:
    """What the requests got."""

    statuses: Counter = field(default_factory=Counter)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


def make_cases(name: str, count: int, seed: int) -> list[Case]:
    """Draw requests at random."""
    draw = random.Random(seed)
    urls = [image_url(scene(n)) for n in (1, 2, 3)] + [image_url(scene(1), "JPEG"), image_url(scene(2), "WEBP")]
    picture = file_of(scene(3), "PNG")
    busy = (429, 504)

    def good() -> Case:
        images = draw.choices(urls, k=draw.choice((0, 1, 1, 1, 2)))
        text = (
            draw.choice(QUESTIONS) + draw.choice(("", "", " <image>", " <user> <eos>")) + " a" * draw.choice((0, 0, 60))
        )
        body: dict[str, Any] = {
            "model": f"{name}:{draw.choice(('st3', 'fastv', 'untouched'))}",
            "messages": message(text, *images),
            "max_tokens": draw.choice((1, 4, 16, 40)),
            "stream": draw.random() < 0.5,
            "logprobs": True,
            "top_logprobs": 2,
        }
        if draw.random() < 0.3:
            body |= {"temperature": 1.0, "top_p": 0.9, "seed": draw.randrange(5)}
        if draw.random() < 0.2:
            body["stop"] = draw.choice(("small", "the", ["x", "purple"]))
        return Case("good", body, (200, *busy), expected=True)

    def cancelled() -> Case:
        body = {"model": name, "messages": message(QUESTIONS[0], urls[0]), "stream": draw.random() < 0.5}
        body |= {"temperature": 2.0, "max_tokens": 400}
        return Case("cancelled", body, (0, 200, *busy), cancel_after=draw.uniform(0.01, 0.5))

    def malformed() -> Case:
        base = {"model": name, "messages": message("hello")}
        field_name = draw.choice(
            ("messages", "model", "max_tokens", "temperature", "stop", "stream", "vistrim", "seed")
        )
        value = draw.choice(({}, [[]], -1.5, "\u0000", True, [None], {"a": 1}, 10**30, "x" * 5000))
        raw = draw.choice((b"{", b"", b"[[[[", b"\xff", b'{"model":', b"null"))
        body: Any = raw if draw.random() < 0.3 else base | {field_name: value}
        # Some values are valid for some fields.
        return Case("malformed", body, (200, 400, 404, *busy))

    def hostile() -> Case:
        url = draw.choice(
            (
                data_url(bomb(30_000, 30_000)),
                data_url(bomb(4_000, 4_000)),
                data_url(picture[: draw.randrange(len(picture))]),
                data_url(file_of(Image.new("RGB", (9, 9)), "GIF")),
                "data:image/png;base64," + "A" * 100_001,
                "/etc/passwd",
                "file:///etc/passwd",
                "http://169.254.169.254/latest/meta-data",
                "https://localhost/x.png",
                "../../model.safetensors",
                "data:image/svg+xml;base64,PHN2Zz4=",
            )
        )
        return Case("hostile", {"model": name, "messages": message("hello", url)}, (400, *busy))

    def oversized() -> Case:
        body = draw.choice(
            (
                b" " * (10 * 2**20),
                {"model": name, "messages": message("hello", "data:image/png;base64," + "A" * 10_000_000)},
                {"model": name, "messages": message("a" * 30_000)},
                {"model": name, "messages": message("hello"), "max_tokens": 100_000},
                {"model": name, "messages": message("hello", *urls[:1] * 9)},
            )
        )
        return Case("oversized", body, (400, 413, *busy))

    def faulty() -> Case:
        fault, status = draw.choice((("raises", 500), ("memory", 503)))
        body = {"model": f"{name}:{fault}", "messages": message("hello", urls[0]), "stream": draw.random() < 0.5}
        return Case("faulty", body, (status, *busy))

    kinds = ((good, 60), (cancelled, 10), (malformed, 10), (hostile, 10), (oversized, 5), (faulty, 5))
    makers, weights = zip(*kinds, strict=True)
    return [draw.choices(makers, weights)[0]() for _ in range(count)]


async def send(client: httpx.AsyncClient, case: Case, outcome: Outcome) -> None:
    """Send a request, and note what it got."""
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body)
    request = client.post("chat/completions", content=body, headers={"content-type": "application/json"})
    try:
        answer = await asyncio.wait_for(request, case.cancel_after)
        status, text = answer.status_code, answer.text
    except (asyncio.TimeoutError, httpx.RemoteProtocolError):
        status, text = 0, ""
    outcome.statuses[case.kind, status] += 1
    if status not in case.statuses:
        outcome.wrong.append(f"{case.kind}: {status} {text[:300]} for {str(case.body)[:200]}")
    if status >= 400 and any(word in text for word in ("Traceback", ".py", "site-packages")):
        outcome.wrong.append(f"{case.kind}: the error tells too much: {text[:300]}")
    if case.expected and status == 200:
        key = json.dumps({k: v for k, v in case.body.items() if k != "stream"}, sort_keys=True)
        outcome.answers.setdefault(key, []).append(read_answer(text, case.body["stream"]))


def read_answer(text: str, streamed: bool) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reason and log-probabilities of an answer."""
    if not streamed:
        [choice] = json.loads(text)["choices"]
        return choice["message"]["content"], choice["finish_reason"], choice["logprobs"]["content"]
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]", text[-500:]
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    return (
        "".join(choice["delta"].get("content") or "" for choice in choices),
        choices[-1]["finish_reason"],
        [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]],
    )


async def run(url: str, cases: list[Case], concurrency: int, outcome: Outcome) -> None:
    """Send all requests, so many at a time."""
    queue = iter(enumerate(cases, 1))

    async def worker(client: httpx.AsyncClient) -> None:
        for number, case in queue:
            await send(client, case, outcome)
            if number in (min(FIRST, len(cases) // 2), len(cases)):
                outcome.resident.append(resident_bytes())

    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=f"{url}/v1/", timeout=300, limits=limits) as client:
        await asyncio.gather(*(worker(client) for _ in range(concurrency)))


async def compare(url: str, outcome: Outcome) -> Counter:
    """Repeat each good request alone, and compare."""
    found: Counter = Counter()
    async with httpx.AsyncClient(base_url=f"{url}/v1/", timeout=300) as client:
        for key, answers in outcome.answers.items():
            answer = await client.post("chat/completions", json=json.loads(key))
            alone = read_answer(answer.text, False)
            for together in answers:
                found[verdict(together, alone)] += 1
                if verdict(together, alone) == "different":
                    outcome.wrong.append(f"{key[-300:]}: {together[0]!r} instead of {alone[0]!r}")
    return found


def verdict(together: Any, alone: Any) -> str:
    """Compare an answer with the same one alone."""
    if together[:2] == alone[:2]:
        return "equal"
    for one, other in zip(together[2], alone[2], strict=False):
        if one["token"] != other["token"]:
            best = [entry["logprob"] for entry in other["top_logprobs"]]
            return "close" if len(best) == 2 and best[0] - best[1] < CLOSE else "different"
    return "different"


def resident_bytes() -> int:
    """Resident memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def live_tensors() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    return sum(x.nbytes for x in gc.get_objects() if issubclass(type(x), torch.Tensor))


def soak(name: str, count: int, concurrency: int = 16, seed: int = 0) -> dict[str, Any]:
    """Run everything. Returns the figures; ``wrong`` lists what must not be."""
    model, processor = vistrim.load(name, dtype="float32", device="cpu")
    # The faults are intended, and logs of thousands of them would hide the result.
    logging.getLogger("vistrim.serving").setLevel(logging.CRITICAL)
    engine = Engine(model, processor, batch_size=8, wait_seconds=0.01)
    served = {
        "st3": vistrim.ST3(),
        "fastv": vistrim.FastV(keep=0.25),
        "raises": Raises(),
        "memory": Raises(error="memory"),
    }
    limits = Limits(body_bytes=8 * 2**20, characters=20_000, pixels=2_000_000, queue=32, deadline=120)
    app = create_app(engine, processor, name=name, served=served, limits=limits, batch_size=8)
    cases, outcome = make_cases(name, count, seed), Outcome()
    before, began = live_tensors(), time.perf_counter()
    with server(app) as url:
        asyncio.run(run(url, cases, concurrency, outcome))
        seconds = time.perf_counter() - began
        verdicts = asyncio.run(compare(url, outcome))
    after, (first, last) = live_tensors(), outcome.resident
    if verdicts["close"] > MOST_CLOSE * verdicts.total():
        outcome.wrong.append(f"{verdicts['close']} of {verdicts.total()} answers differ at close logits")
    if count >= 2 * FIRST and abs(last - first) > GROWTH * first:
        outcome.wrong.append(f"resident memory went from {first} to {last} bytes")
    if after != before:
        outcome.wrong.append(f"tensors of {after - before} bytes are left")
    if engine.waiting or engine.running:
        outcome.wrong.append("requests are left")
    return {
        "requests": count,
        "seconds": round(seconds, 1),
        "statuses": {f"{kind} {status}": n for (kind, status), n in sorted(outcome.statuses.items())},
        "answers": dict(verdicts),
        "resident_mb": [round(n / 2**20) for n in outcome.resident],
        "tensor_bytes_left": after - before,
        "wrong": outcome.wrong,
    }


def main() -> None:
    """Read the options, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = soak(options.model, options.requests, options.concurrency, options.seed)
    print(json.dumps(figures, indent=2))
    if figures["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
