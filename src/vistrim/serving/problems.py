"""Errors of any kind as error objects of OpenAI's API."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from vistrim.serving.errors import RequestError, generation_failed
from vistrim.serving.metrics import Metrics
from vistrim.serving.protocol import describe_mistake

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Make an application answer every error with an error object, without tracebacks or values of the request.

    Parameters
    ----------
    app : FastAPI
        The application.
    metrics : Metrics
        Counts requests that are not valid.
    """

    def respond(error: RequestError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        message, param = describe_mistake(error.errors()[0])
        metrics.reject("invalid_request")
        return respond(RequestError(message, code="invalid_request", param=param))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "invalid_request")
        message = code.replace("_", " ")
        if error.status_code in (404, 405):
            message += ": /docs lists the paths of this server"
        return respond(RequestError(message, status=error.status_code, code=code))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return respond(generation_failed())
