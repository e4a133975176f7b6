"""Requests of the chat API, as OpenAI's clients send them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

SEEDS = 2**63

_Text = Annotated[str, StringConstraints(max_length=2**26)]
_Short = Annotated[str, StringConstraints(max_length=512)]


class _Strict(BaseModel):
    """No conversion of types, and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(_Strict):
    """Text of a message."""

    type: Literal["text"]
    text: _Text


class ImageUrl(_Strict):
    """An image: ``data:image/png;base64,...``, or an https URL if the server allows its host."""

    url: _Text
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Strict):
    """Image of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class UserMessage(_Strict):
    """Text and images of the user."""

    role: Literal["user"]
    content: _Text | list[Part]
    name: _Short | None = None


class SystemMessage(_Strict):
    """Instructions."""

    role: Literal["system", "developer"]
    content: _Text | list[TextPart]
    name: _Short | None = None


class AssistantMessage(_Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: _Text | list[TextPart]
    name: _Short | None = None
    refusal: None = None


Message = Annotated[UserMessage | SystemMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class VistrimOptions(_Strict):
    """The trimming of a request; ``extra_body={"vistrim": {...}}`` in OpenAI's client.

    Attributes
    ----------
    method : str or None
        A label or method of the server's list, or the notation of an allowed method. None: as the model id says.
    budget : str or None
        ``"tokens=0.33"``, ``"flops=0.5"`` or ``"kv=0.4"``: set the method to this budget.
    trace : bool
        Whether the answer tells which tokens each layer held at each step. The server must allow it.
    """

    method: _Short | None = None
    budget: _Short | None = None
    trace: bool = False


class ChatRequest(_Strict):
    """A request of ``POST /v1/chat/completions``.

    Fields without effect are accepted if clients send them by default. Fields that would change the answer and are
    not supported are refused, except for their neutral value.
    """

    model: _Short
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-SEEDS, lt=SEEDS)
    stop: _Short | list[_Short] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    vistrim: VistrimOptions | None = None

    # Without effect.
    user: _Short | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: _Short | None = None
    safety_identifier: _Short | None = None
    prompt_cache_key: _Short | None = None

    # Not supported, except for their neutral value.
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[Any] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @field_validator("n")
    @classmethod
    def _one_answer(cls, value: int | None) -> int | None:
        return _neutral(value, (None, 1), "a request has one answer; leave it out, and send the request several times")

    @field_validator("frequency_penalty", "presence_penalty")
    @classmethod
    def _no_penalty(cls, value: float | None) -> float | None:
        return _neutral(value, (None, 0), "penalties are not supported; leave it out")

    @field_validator("tools", "tool_choice", "functions", "function_call")
    @classmethod
    def _no_tools(cls, value: Any) -> Any:
        return _neutral(value, (None, [], "none", "auto"), "tools are not supported; leave it out")

    @field_validator("response_format")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        return _neutral(value, (None, {"type": "text"}), "answers are plain text; leave it out")

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        return _neutral(value, (None, ["text"]), "answers are plain text; leave it out")

    @field_validator("logit_bias", "audio", "prediction", "reasoning_effort", "verbosity", "web_search_options")
    @classmethod
    def _not_supported(cls, value: Any) -> Any:
        return _neutral(value, (None, {}), "not supported; leave it out")

    @field_validator("stop")
    @classmethod
    def _some_stops(cls, value: Any) -> Any:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > 4 or not all(stops):
            raise ValueError("give at most 4 stop strings, none of them empty")
        return value


def _neutral(value: Any, allowed: tuple[Any, ...], message: str) -> Any:
    if value not in allowed:
        raise ValueError(message)
    return value


_ABSENT = {"missing": "is missing: add it to the request", "too_short": "is empty: send at least one"}
"""What is said of fields without a value, by pydantic's types of errors."""


def describe_mistake(error: dict[str, Any]) -> tuple[str, str | None]:
    """Describe one error of pydantic without the value that was sent.

    Parameters
    ----------
    error : dict
        An element of ``ValidationError.errors()``.

    Returns
    -------
    message : str
        The place and the reason.
    param : str or None
        The field, or None if the body as a whole is wrong.
    """
    # FastAPI puts "body" in front; a position in broken JSON is a number.
    place = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return "the body is not valid JSON", None
    if error["type"] == "extra_forbidden":
        return f"unknown field {'.'.join(place)[:200]}: leave it out", place[0][:100]
    if error["type"] in _ABSENT and place:
        return f"{'.'.join(place)[:200]} {_ABSENT[error['type']]}", place[0][:100]
    reason = error["msg"].removeprefix("Value error, ")
    return (f"{'.'.join(place)}: {reason}"[:500], place[0][:100]) if place else (f"the body: {reason}"[:500], None)
