"""A served model for the tests: its engine, its application, and a server on a free port."""

import base64
import queue
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

import vistrim
from vistrim.methods.base.per_image import ImageChoice, PerImage
from vistrim.serving.app import create_app
from vistrim.serving.engine import Engine
from vistrim.serving.jobs import Done, Failed, Job, Piece
from vistrim.serving.limits import Limits
from vistrim.serving.messages import Conversation
from vistrim.serving.server import Server

NAME = "reference-small"
IMAGES = Path(__file__).parents[2] / "examples" / "images"
SERVED = {"st3": vistrim.ST3(), "fastv": vistrim.FastV(keep=0.25)}
BATCH = 4


@cache
def loaded() -> tuple[Any, Any]:
    """The model and its processor."""
    return vistrim.load(NAME, dtype="float32", device="cpu")


@cache
def apart() -> Any:
    """The same model, for generations outside of the engine."""
    return vistrim.load(NAME, dtype="float32", device="cpu")[0]


@cache
def scene(number: int) -> Image.Image:
    """One of three images."""
    return Image.open(IMAGES / f"scene-{number}.png").convert("RGB")


def conversation(text: str, *scenes: int) -> Conversation:
    """A question about images."""
    shown = [{"type": "image", "image": scene(number)} for number in scenes]
    return Conversation([{"role": "user", "content": [*shown, {"type": "text", "text": text}]}])


def image_url(image: Image.Image, kind: str = "PNG") -> str:
    """An image as the API takes it."""
    file = BytesIO()
    image.save(file, kind)
    return data_url(file.getvalue(), kind.lower())


def data_url(data: bytes, kind: str = "png") -> str:
    """Bytes as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def message(text: str, *urls: str) -> list[dict[str, Any]]:
    """Messages with one question about images."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@contextmanager
def engine(**settings: Any):
    """An engine that is closed at the end."""
    made = Engine(*loaded(), **{"batch_size": BATCH, "wait_seconds": 0.1} | settings)
    try:
        yield made
    finally:
        made.close(seconds=30)
        assert not made.is_alive


class Asked:
    """A job, and the events that it got."""

    def __init__(self, made: Engine, asked: Conversation, **settings: Any) -> None:
        self.events: queue.Queue = queue.Queue()
        self.pieces: list[Piece] = []
        self.times: list[float] = []
        inputs = made.preparer.prepare(asked)
        self.job = Job(inputs, deliver=self.events.put, **{"limit": 24} | settings)

    def ended(self) -> Done | Failed:
        """Wait for the end."""
        while isinstance(event := self.events.get(timeout=60), Piece):
            self.pieces.append(event)
        return event

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(piece.text for piece in self.pieces)


def ask(made: Engine, *asked: Asked) -> list[Done | Failed]:
    """Submit jobs together, and wait for their ends."""
    for each in asked:
        made.submit(each.job)
    return [each.ended() for each in asked]


@dataclass(frozen=True)
class Raises(PerImage):
    """Raises an error on every image."""

    name = "raises"
    summary = "raises"
    source = "test"
    error: str = "fails"

    def choose(self, image: Any) -> ImageChoice:
        raise {"fails": ValueError("/secret/path"), "memory": MemoryError()}[self.error]


@contextmanager
def application(limits: Limits | None = None, **settings: Any):
    """An application."""
    with engine() as made:
        yield create_app(
            made,
            loaded()[1],
            name=NAME,
            **{"served": SERVED, "allowed": ("divprune",), "limits": limits or Limits(), "batch_size": BATCH}
            | settings,
        )


@contextmanager
def server(app: Any):
    """Serves an application on a free port. Gives its URL."""
    urls: queue.Queue[str] = queue.Queue()
    running = Server(app, "127.0.0.1", 0, 10, urls.put)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield urls.get(timeout=30)
    finally:
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def eventually(condition: Any, seconds: float = 30) -> bool:
    """Whether a condition becomes true."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
