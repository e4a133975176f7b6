"""The paths of the server."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vistrim._utils.labels import UNTOUCHED
from vistrim.methods import list_methods
from vistrim.serving.answering import Disconnected
from vistrim.serving.choosing import Choice, Methods
from vistrim.serving.engine import Engine
from vistrim.serving.errors import RequestError
from vistrim.serving.event_stream import EventStream
from vistrim.serving.guards import Room
from vistrim.serving.metrics import Metrics
from vistrim.serving.protocol import ChatRequest
from vistrim.serving.service import ChatService

CLIENT_CLOSED_REQUEST = 499
"""Status in the log of a request whose client has gone. Nobody receives it."""


def chat_routes(service: ChatService) -> APIRouter:
    """Return the path of the chat API."""
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation with images, with one of the server's methods."""
        asked = (body, request.receive, request.state.request_id)
        try:
            if body.stream:
                return EventStream(await service.stream(*asked), service.limits.deadline)
            return JSONResponse(await service.complete(*asked))
        except Disconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


def model_routes(methods: Methods) -> APIRouter:
    """Return the paths that list models and methods."""
    router, began = APIRouter(), int(time.time())

    def describe(model_id: str, choice: Choice) -> dict[str, Any]:
        method = UNTOUCHED if choice.method is None else str(choice.method)
        own = {"label": choice.label, "method": method}
        if choice.method is not None and methods.budget is not None:
            own["budget"] = methods.budget
        return {"id": model_id, "object": "model", "created": began, "owned_by": "vistrim", "vistrim": own}

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model ids, one per method of the server."""
        return {"object": "list", "data": [describe(*entry) for entry in methods.models().items()]}

    @router.get("/v1/models/{model_id:path}")
    async def model(model_id: str) -> dict[str, Any]:
        """Describe a model id."""
        choice = methods.models().get(model_id)
        if choice is None:
            raise RequestError("there is no such model: see /v1/models", status=404, code="model_not_found")
        return describe(model_id, choice)

    @router.get("/v1/vistrim/methods")
    async def all_methods() -> dict[str, Any]:
        """List the methods that requests may choose."""
        served = {label: UNTOUCHED if method is None else str(method) for label, method in methods.served.items()}
        allowed = [info for info in list_methods() if info.name in methods.allowed]
        return {
            "default": methods.default,
            "served": [{"label": label, "method": method} for label, method in served.items()],
            "allowed": [{"name": info.name, "summary": info.summary} for info in allowed],
        }

    return router


def status_routes(engine: Engine, room: Room, metrics: Metrics) -> APIRouter:
    """Return the paths for operators."""
    router = APIRouter()

    def status(is_good: bool, good: str, bad: str) -> JSONResponse:
        return JSONResponse({"status": good if is_good else bad}, 200 if is_good else 503)

    @router.get("/health")
    async def health() -> JSONResponse:
        """Tell whether the server works; if not, it must be restarted."""
        return status(engine.is_alive, "ok", "the engine has ended")

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """Tell whether the server accepts a further request now."""
        return status(engine.is_alive and not room.is_full, "ready", "not ready")

    @router.get("/metrics")
    async def all_metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
