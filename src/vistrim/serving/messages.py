"""Messages of OpenAI's chat API as turns of transformers' chat templates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vistrim.serving.errors import RequestError
from vistrim.serving.limits import Limits

ROLES = {"developer": "system"}
"""Roles that chat templates do not know."""


@dataclass(frozen=True)
class Conversation:
    """The conversation of a request.

    Attributes
    ----------
    turns : list of dict
        ``{"role": ..., "content": [...]}`` with parts ``{"type": "text", "text": ...}`` and
        ``{"type": "image", "image": PIL image}``.
    """

    turns: list[dict[str, Any]]

    @property
    def images(self) -> list[Image.Image]:
        """All images in order."""
        return [part["image"] for turn in self.turns for part in turn["content"] if part["type"] == "image"]

    @property
    def texts(self) -> list[str]:
        """All texts in order."""
        return [part["text"] for turn in self.turns for part in turn["content"] if part["type"] == "text"]


def check_messages(messages: Sequence[Any], limits: Limits) -> None:
    """Check the number of messages, images and characters, before anything is decoded.

    Parameters
    ----------
    messages : sequence of protocol.Message
        The messages of a request.
    limits : Limits
        The limits of the server.

    Raises
    ------
    RequestError
        If a limit is exceeded.
    """
    if len(messages) > limits.messages:
        raise _too_many(f"more than {limits.messages} messages: send fewer", "too_many_messages")
    parts = [part for message in messages for part in _parts(message)]
    if sum(part.type == "image_url" for part in parts if not isinstance(part, str)) > limits.images:
        raise _too_many(f"more than {limits.images} images: send fewer", "too_many_images")
    texts = (part if isinstance(part, str) else part.text for part in parts if getattr(part, "type", "text") == "text")
    if sum(map(len, texts)) > limits.characters:
        raise _too_many(f"more than {limits.characters} characters of text: shorten it", "text_too_long")


def read_messages(messages: Sequence[Any], read_image: Callable[[str], Image.Image]) -> Conversation:
    """Convert messages, and decode their images.

    Parameters
    ----------
    messages : sequence of protocol.Message
        The messages of a request.
    read_image : callable
        Reads the image of a URL.

    Returns
    -------
    Conversation
        Without any string that would make transformers open a file or a URL.

    Raises
    ------
    RequestError
        If an image cannot be read.
    """
    return Conversation(
        [
            {
                "role": ROLES.get(message.role, message.role),
                "content": [
                    {"type": "image", "image": read_image(part.image_url.url)}
                    if getattr(part, "type", "text") == "image_url"
                    else {"type": "text", "text": part if isinstance(part, str) else part.text}
                    for part in _parts(message)
                ],
            }
            for message in messages
        ]
    )


def _parts(message: Any) -> Sequence[Any]:
    return [message.content] if isinstance(message.content, str) else message.content


def _too_many(message: str, code: str) -> RequestError:
    return RequestError(message, code=code, param="messages")
