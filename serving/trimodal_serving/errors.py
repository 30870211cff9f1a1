"""Answers to requests that cannot be served, in the error envelope of the OpenAI protocol.

raise ServingError(400, "empty_input", "`input` is empty", param="input")
"""

from collections.abc import Mapping
from typing import Any

from trimodal.errors import DataError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
INTERNAL = "internal"
LATE = "request_timeout"


class ServingError(Exception):
    """An answer other than 2xx; every word of it is ours, so that it can be shown to anybody.

    `retry_after` is in seconds, and given only where sending the same again may help.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.rates: Mapping[str, str] = {}
        """What is left to the key that is refused, as headers."""

    def at(self, param: str) -> "ServingError":
        """The same error, about the part of the request that `param` names."""
        return ServingError(
            self.status, self.code, self.message, param=param, retry_after=self.retry_after
        )

    def envelope(self) -> dict[str, Any]:
        """The body of the answer."""
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, fallback)
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Whether and when to send the request again; openai-python retries 5xx unless told."""
        if self.status == 401:
            return {"x-should-retry": "false", "www-authenticate": "Bearer"}
        if self.retry_after is None:
            return {"x-should-retry": "false"}
        return {"retry-after": str(self.retry_after), **self.rates}


class CutError(Exception):
    """An answer that ends before its end, and cannot say why: it is no JSON and no events."""


def rejected(error: DataError, param: str) -> ServingError:
    """A medium that the processor refused; its messages are ours and hold nothing of the medium."""
    return ServingError(400, error.code, str(error), param=param)


def internal(param: str | None = None, cause: Exception | None = None) -> ServingError:
    """A failure of ours; its cause is never shown, but logged under the request's id."""
    error = ServingError(500, INTERNAL, "the server failed on this request", param=param)
    error.__cause__ = cause
    return error


def is_internal(result: object) -> bool:
    """Whether something is a failure of ours."""
    return isinstance(result, ServingError) and result.code == INTERNAL


def nonfinite(param: str | None = None) -> ServingError:
    """The vector of an input is no vector; sending the input again would not help."""
    message = "the model computed no finite vector of this input"
    return ServingError(500, "nonfinite_output", message, param=param)


def model_not_found(*served: str) -> ServingError:
    """The client asks for a model under a name that is none of those that are `served`."""
    names = ", ".join(f"`{name}`" for name in served)
    message = f"there is no model of that name here; this server has {names}"
    return ServingError(404, "model_not_found", message, param="model")


def too_late(seconds: float) -> ServingError:
    """A request is not answered in the time that each has; what was begun for it is given up."""
    return ServingError(504, LATE, f"the request took longer than {seconds:g} s")


def client_closed() -> ServingError:
    """The client went away; nobody reads this answer."""
    return ServingError(499, "client_closed_request", "the client closed the connection")
