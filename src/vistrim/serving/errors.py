"""Errors of requests, with the HTTP status and the fields of an OpenAI error object."""

from typing import Any

from vistrim.errors import VistrimError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class RequestError(VistrimError):
    """A request cannot be answered. The message is sent to the client.

    Parameters
    ----------
    message : str
        The reason and the fix. Never contains paths, tracebacks or messages of other libraries.
    status : int
        The HTTP status.
    code : str
        Machine-readable reason.
    param : str, optional
        The part of the request that is wrong.
    retry_after : int, optional
        Seconds after which the request may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """Return the error object of OpenAI's API."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that belong to the error."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def deadline_passed(seconds: float) -> RequestError:
    """Return the error of a request that was not answered in time."""
    return RequestError(
        f"no answer within {seconds:g} seconds: ask for fewer tokens, or try again when the server is less busy",
        status=504,
        code="deadline_exceeded",
    )


def generation_failed() -> RequestError:
    """Return the error of a request whose generation raised an error. The server's log has the reason."""
    return RequestError("the generation failed; the server's log has the reason", status=500, code="generation_failed")


def out_of_memory() -> RequestError:
    """Return the error of a request that does not fit into memory."""
    return RequestError(
        "the server ran out of memory: use fewer or smaller images, or ask for fewer tokens",
        status=503,
        code="out_of_memory",
    )


def shutting_down() -> RequestError:
    """Return the error of a request that a server that shuts down does not answer."""
    return RequestError("the server is shutting down", status=503, code="shutting_down")
