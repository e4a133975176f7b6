"""State of one answer of a batch while it is generated: its tokens, its text, and whether it is complete."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vistrim.serving.detokenizing import Detokenizer

STOP, LENGTH, EXPIRED, CANCELLED = "stop", "length", "expired", "cancelled"


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probabilities of one generated token.

    Attributes
    ----------
    token : int
        The token.
    logprob : float
        Its log-probability.
    top : list of (int, float)
        The most likely tokens with their log-probabilities.
    """

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Row:
    """One answer.

    Attributes
    ----------
    limit : int
        Most tokens.
    stops : sequence of str
        The answer ends before the first of these strings.
    ends : frozenset of int
        Tokens that end the answer.
    deadline : float
        Time of `time.monotonic` at which the answer is given up.
    is_cancelled : callable
        Whether the client has gone.
    detokenizer : Detokenizer
        Converts tokens to text.
    reason : str or None
        Why the answer is complete. None: it is not.
    text : str
        All text so far, without the stop string. While the answer is incomplete, its end may be withheld because it
        could be the beginning of a stop string.
    """

    limit: int
    stops: Sequence[str]
    ends: frozenset[int]
    deadline: float
    is_cancelled: Callable[[], bool]
    detokenizer: Detokenizer
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text: str = ""
    reason: str | None = None
    _raw: str = ""

    def take(self, token: int, logprob: tuple[float, list[tuple[int, float]]] | None = None) -> None:
        """Add the next token. Rows that are complete take none.

        Parameters
        ----------
        token : int
            The token.
        logprob : tuple, optional
            Its log-probability, and the most likely tokens with theirs.
        """
        if self.reason is not None:
            return
        if self.is_cancelled():
            self.reason = CANCELLED
            return
        if time.monotonic() >= self.deadline:
            self.reason = EXPIRED
            return
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(TokenLogprob(token, *logprob))
        is_end = token in self.ends
        is_last = is_end or len(self.tokens) >= self.limit
        if not is_end:
            self._raw += self.detokenizer.add(token)
        if is_last:
            self._raw += self.detokenizer.finish()
        self._cut(is_last)
        if self.reason is None and is_last:
            self.reason = STOP if is_end else LENGTH

    def _cut(self, is_last: bool) -> None:
        found = [at for stop in self.stops if (at := self._raw.find(stop)) >= 0]
        if found:
            self.text, self.reason = self._raw[: min(found)], STOP
        else:
            self.text = self._raw if is_last else self._raw[: len(self._raw) - withheld(self._raw, self.stops)]


def withheld(text: str, stops: Sequence[str]) -> int:
    """Count the characters at the end of a text that may be the beginning of a stop string.

    Parameters
    ----------
    text : str
        The text.
    stops : sequence of str
        The stop strings.

    Returns
    -------
    int
        The largest count over all stop strings.
    """
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )
