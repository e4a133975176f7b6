"""Requests as the engine sees them, and the events that answer them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vistrim.methods import Method
from vistrim.serving.errors import RequestError, deadline_passed, generation_failed
from vistrim.serving.rows import EXPIRED, Row, TokenLogprob
from vistrim.serving.sampling import Sampling


@dataclass(frozen=True)
class Piece:
    """The next part of an answer.

    Attributes
    ----------
    text : str
        The text, which may be empty.
    logprobs : sequence of TokenLogprob
        Log-probabilities of the tokens since the last part, if the request asks for them.
    """

    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class Done:
    """The end of an answer.

    Attributes
    ----------
    reason : str
        "stop" or "length".
    completion_tokens : int
        Generated tokens.
    figures : dict
        Measurements of the generation, see `vistrim.serving.figures`.
    """

    reason: str
    completion_tokens: int
    figures: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The request cannot be answered.

    Attributes
    ----------
    error : RequestError
        The reason.
    """

    error: RequestError


Event = Piece | Done | Failed


@dataclass(eq=False)
class Job:
    """A request.

    Attributes
    ----------
    inputs : mapping of str to Tensor
        The prompt, as the processor made it, for one sample.
    limit : int
        Longest answer in tokens.
    deliver : callable
        Receives the events, in the thread of the engine.
    method : Method or None
        The method to trim with. None: the untouched model.
    sampling : Sampling
        How tokens are chosen.
    stops : sequence of str
        Stop strings.
    top_logprobs : int or None
        Number of most likely tokens to report for each token. None: no log-probabilities.
    trace : bool
        Whether the figures tell which tokens each layer held.
    seconds : float
        Time from the arrival to the end of the answer after which it is given up.
    request_id : str
        Name of the request in the log.
    """

    inputs: Mapping[str, Tensor]
    limit: int
    deliver: Callable[[Event], None]
    method: Method | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stops: Sequence[str] = ()
    top_logprobs: int | None = None
    trace: bool = False
    seconds: float = 120.0
    arrived: float = field(default_factory=time.monotonic)
    request_id: str = ""
    queued: float = 0.0
    is_cancelled: bool = False
    is_over: bool = False
    _text_sent: str = ""
    _logprobs_sent: int = 0

    @property
    def group(self) -> tuple[str, int | None]:
        """What the jobs of a batch have in common. All run in the dtype of the model."""
        return ("" if self.method is None else str(self.method), self.top_logprobs)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, all visual tokens included."""
        return self.inputs["input_ids"].shape[1]

    @property
    def deadline(self) -> float:
        """Time of `time.monotonic` at which the answer is given up."""
        return self.arrived + self.seconds

    def cancel(self) -> None:
        """Give up the answer, from any thread: the client has gone."""
        self.is_cancelled = True

    def drop_if_pointless(self) -> bool:
        """End a job that waits although its client has gone or its deadline has passed. Returns whether it is over."""
        if self.is_cancelled:
            self.is_over = True
        elif time.monotonic() >= self.deadline:
            self.fail(deadline_passed(self.seconds))
        return self.is_over

    def advance(self, row: Row) -> bool:
        """Deliver what is new in the row of this job. Returns whether the answer is complete, but not yet ended.

        After a failed attempt, the row begins anew, and what was delivered before is not delivered again. If the new
        text is another one, which rounding in a smaller batch may cause, the answer fails.
        """
        if self.is_over:
            return False
        if row.reason == EXPIRED:
            self.fail(deadline_passed(self.seconds))
        elif self.is_cancelled:
            self.is_over = True
        elif not self._continues(row):
            self.fail(generation_failed())
        else:
            text, logprobs = row.text[len(self._text_sent) :], row.logprobs[self._logprobs_sent :]
            if text or logprobs:
                self._text_sent += text
                self._logprobs_sent += len(logprobs)
                self.deliver(Piece(text, logprobs))
        return row.reason is not None and not self.is_over

    def _continues(self, row: Row) -> bool:
        is_behind = row.reason is None and self._text_sent.startswith(row.text)
        return is_behind or row.text.startswith(self._text_sent)

    def end(self, row: Row, figures: dict[str, Any]) -> None:
        """Deliver the end of the answer."""
        assert row.reason is not None
        self.is_over = True
        self.deliver(Done(row.reason, len(row.tokens), figures))

    def fail(self, error: RequestError) -> None:
        """Deliver an error."""
        if not self.is_over:
            self.is_over = True
            self.deliver(Failed(error))
