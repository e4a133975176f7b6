"""Requests of lmms-eval, as conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim._utils.image_files import read_images, to_rgb
from vistrim.errors import InputError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

Message = dict[str, Any]


def conversation(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Translate the messages of a task into those of transformers' chat templates.

    Parameters
    ----------
    messages : sequence of mappings
        ``{"role": ..., "content": [{"type": "text", "text": ...}, {"type": "image", "url": ...}, ...]}``, or content
        as one text.

    Returns
    -------
    list of dict

    Raises
    ------
    InputError
        If a part is neither text, nor an image, nor a whole video.
    """
    return [{"role": message["role"], "content": _parts(message["content"])} for message in messages]


def _parts(content: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Message:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind == "image":
        return {"type": "image", "image": _image(part.get("url", part.get("image")))}
    if kind == "video":
        return {"type": "video", "video": _video(part)}
    raise InputError(f"the task shows {kind}, but vistrim's models take text, images and videos: leave the task out")


def _image(shown: Any) -> Image.Image:
    if isinstance(shown, Image.Image):
        return to_rgb(shown)
    if isinstance(shown, (str, Path)):
        return read_images([Path(shown)])[0]
    raise InputError(f"an image of the task is a {type(shown).__name__}: vistrim takes PIL images and paths")


def _video(part: Mapping[str, Any]) -> Any:
    url = part.get("url", part.get("video"))
    told = url if isinstance(url, Mapping) else part
    bounds = ("start_time", "end_time", "video_start", "video_end")
    if any(told.get(name) is not None for name in bounds):
        raise InputError("the task shows a part of a video, and vistrim takes whole videos only: leave the task out")
    return url.get("url", url.get("path")) if isinstance(url, Mapping) else url


def visual_part(visual: Any) -> Message:
    """Translate what ``doc_to_visual`` of a task returns for one image or video."""
    if isinstance(visual, (str, Path)) and Path(visual).suffix.lower() not in IMAGES:
        return _part({"type": "video", "url": visual})
    if isinstance(visual, Mapping):
        return _part({"type": visual.get("type", "video"), "url": visual})
    return _part({"type": "image", "url": visual})


def user_message(visuals: Sequence[Any] | None, text: str) -> list[Message]:
    """Make the one message of a simple request: images and videos, then the text."""
    return [{"role": "user", "content": [*map(visual_part, visuals or []), {"type": "text", "text": text}]}]


def rounds(ask: Callable[..., Any], document: Any, answer: Callable[[list[Message]], str]) -> list[str]:
    """Ask all rounds of a document; each is a conversation of its own.

    Parameters
    ----------
    ask : callable
        The task's ``doc_to_messages``. From the second round on, it receives ``round_idx``, ``previous_output`` and
        ``previous_round_info``, and returns messages, whether the last round is over, answers, and information for
        the next round.
    document : object
        The document.
    answer : callable
        Answers a conversation.

    Returns
    -------
    list of str
        The answer of each round.
    """
    messages, answers, told = ask(document), [], None
    while True:
        answers.append(answer(conversation(messages)))
        found = ask(document, round_idx=len(answers), previous_output=list(answers), previous_round_info=told)
        # A task with a single round returns messages again.
        if not (isinstance(found, tuple) and len(found) == 4) or found[1]:
            return answers
        messages, _, _, told = found
