"""The HTTP application."""

import copy
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from vistrim._version import __version__
from vistrim.methods import Method
from vistrim.serving.choosing import Methods
from vistrim.serving.demo_page import demo_routes
from vistrim.serving.engine import Engine
from vistrim.serving.guards import Admission, Guarded, Logged, Room
from vistrim.serving.limits import Limits
from vistrim.serving.metrics import Metrics
from vistrim.serving.problems import answer_errors
from vistrim.serving.reference_page import add_reference
from vistrim.serving.regions import RegionFinder, region_routes
from vistrim.serving.routes import chat_routes, model_routes, status_routes
from vistrim.serving.service import ChatService

LARGE_BODIES = 8
"""Number of bodies of the largest size that may be held at a time. Most bodies are much smaller."""


def create_app(
    engine: Engine,
    processor: Any,
    *,
    name: str,
    served: Mapping[str, Method | None] = MappingProxyType({}),
    allowed: Collection[str] = (),
    budget: str | None = None,
    limits: Limits | None = None,
    batch_size: int = 8,
    api_key: str | None = None,
    is_local: bool = True,
    open_metrics: bool = False,
    demo: bool = False,
    replica: str | None = None,
) -> FastAPI:
    """Create the application.

    Parameters
    ----------
    engine : Engine
        Generates the answers. It is closed with the application.
    processor : ProcessorMixin
        Processor of the model.
    name : str
        Name of the model in model ids.
    served : mapping of str to Method or None
        Methods by label, the default first. None: the untouched model, which is served in any case. Empty: ST³, with
        the schedule beside the model if there is one.
    allowed : collection of str
        Names of methods whose parameters requests may set.
    budget : str or None
        Budget of all methods of ``served``, for requests that name none.
    limits : Limits, optional
        Limits of requests. None: the default limits.
    batch_size : int
        Number of requests that are answered at a time. Together with ``limits.queue``, it limits the requests
        in progress.
    api_key : str or None
        Key that requests must have. None: all requests are answered.
    is_local : bool
        Whether only this machine can reach the server.
    open_metrics : bool
        Whether ``/metrics`` needs no API key.
    demo : bool
        Whether there is the page ``/demo``. It asks for traces, which the limits must allow.
    replica : str or None
        Name of this one of several servers behind one address: a label of all metrics.

    Returns
    -------
    FastAPI
        The application.

    Raises
    ------
    ValueError
        If a method does not fit the model or cannot be set to the budget.
    """
    limits = limits or Limits()
    methods = Methods(name, served, allowed, engine.model, engine.spec, budget)
    metrics = Metrics(name, replica)
    metrics.describe_model(methods.default, str(engine.model.dtype).removeprefix("torch."))
    metrics.watch(lambda: engine.running, lambda: engine.waiting, lambda: engine.kv_bytes)
    service = ChatService(engine, methods, limits, metrics, copy.deepcopy(processor.tokenizer))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="vistrim",
        version=__version__,
        summary=f"Chat with {name} about images, with fewer visual tokens",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    room = Room(batch_size + limits.queue, LARGE_BODIES * limits.body_bytes)
    # The last one added is the outermost.
    app.add_middleware(
        Admission,
        room=room,
        body_bytes=limits.body_bytes,
        retry_after=service.retry_after,
        reject=metrics.reject,
    )
    public = {"/health", "/ready"} | ({"/metrics"} if open_metrics else set())
    if demo:
        page, files = demo_routes(engine, name)
        app.include_router(page)
        public |= files
    app.add_middleware(Guarded, api_key=api_key, is_local=is_local, public=public)
    app.add_middleware(Logged)
    answer_errors(app, metrics)
    app.include_router(chat_routes(service))
    app.include_router(model_routes(methods))
    app.include_router(status_routes(engine, room, metrics))
    if limits.trace:
        app.include_router(region_routes(RegionFinder(engine, processor, limits)))
    add_reference(app)
    app.state.engine = engine
    return app
