"""The images of a prompt as the model sees them, with the grids of their visual tokens."""

import base64
import copy
import io
import threading
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vistrim.analysis import regions_of
from vistrim.analysis.overlay import Region
from vistrim.engine.inputs.unencoded import read_unencoded
from vistrim.engine.report.trace import Trace
from vistrim.engine.report.tracer import Tracer
from vistrim.serving.engine import Engine
from vistrim.serving.errors import RequestError
from vistrim.serving.fetching import fetch_image
from vistrim.serving.images import ImageReader
from vistrim.serving.limits import Limits
from vistrim.serving.messages import check_messages, read_messages
from vistrim.serving.protocol import Message

MAX_SIDE = 768
"""Longest side of the images in an answer, in pixels."""


class RegionsRequest(BaseModel):
    """The messages of a request of the chat API."""

    model_config = ConfigDict(strict=True, extra="forbid")

    messages: list[Message] = Field(min_length=1)


class RegionFinder:
    """Finds the regions of prompts.

    Parameters
    ----------
    engine : Engine
        Makes the prompts.
    processor : ProcessorMixin
        The processor of the model. A copy is used.
    limits : Limits
        The limits of the server.
    """

    def __init__(self, engine: Engine, processor: Any, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._processor = copy.deepcopy(processor)
        # Fast tokenizers must not be used by two threads at once.
        self._lock = threading.Lock()

    def find(self, messages: Sequence[Any]) -> list[dict[str, Any]]:
        """Find the regions of the images of a conversation.

        Parameters
        ----------
        messages : sequence of protocol.Message
            The messages of a request.

        Returns
        -------
        list of dict
            Plain data of each region. Empty if there is no image.

        Raises
        ------
        RequestError
            If an image is refused, or the visual tokens of the model form no grid on its images.
        """
        check_messages(messages, self._limits)
        conversation = read_messages(messages, ImageReader(self._limits, fetch_image).read)
        if not conversation.images:
            return []
        inputs = self._engine.preparer.prepare(conversation)
        try:
            with self._lock:
                found = regions_of(self._processor, inputs, conversation.images, self._untrimmed_trace(inputs))
        # Processors are the checkpoint's own and fail in many ways.
        except Exception:
            raise RequestError(
                "the visual tokens of this model form no grid on these images", code="no_regions", param="messages"
            ) from None
        return [_plain(region) for region in found]

    def _untrimmed_trace(self, inputs: Any) -> Trace:
        spec = self._engine.spec
        tracer = Tracer(spec.decoder_shape.layers, spec.images.parts_unknown)
        tracer.end_prefill(1, 0, read_unencoded(spec, inputs), [])
        return tracer.trace(0)


def _plain(region: Region) -> dict[str, Any]:
    shown = region.image.convert("RGB")
    shown.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "PNG")
    return {
        "name": region.name,
        "rows": region.grid[0],
        "columns": region.grid[1],
        "tokens": list(region.tokens),
        "width": region.image.width,
        "height": region.image.height,
        "image": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
    }


def region_routes(finder: RegionFinder) -> APIRouter:
    """Return the path that finds regions."""
    router = APIRouter()

    @router.post("/v1/vistrim/regions")
    async def regions(body: RegionsRequest) -> dict[str, Any]:
        """Return the images of a conversation as the model sees them, with the grids of their visual tokens."""
        return {"regions": await run_in_threadpool(finder.find, body.messages)}

    return router
