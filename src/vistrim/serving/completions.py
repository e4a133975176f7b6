"""Answers in the format of OpenAI's chat API, whole or in chunks."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from vistrim.serving.jobs import Done, Piece
from vistrim.serving.rows import TokenLogprob


class Completion:
    """The answer to one request.

    Parameters
    ----------
    model : str
        The model id of the request.
    prompt_tokens : int
        Tokens of the prompt.
    tokenizer : PreTrainedTokenizerBase
        Writes the tokens of log-probabilities.
    """

    def __init__(self, model: str, prompt_tokens: int, tokenizer: Any) -> None:
        self._prompt_tokens, self._tokenizer = prompt_tokens, tokenizer
        self._common = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, pieces: Sequence[Piece], done: Done, with_logprobs: bool) -> dict[str, Any]:
        """Return the object of an answer that is not streamed."""
        entries = [entry for piece in pieces for entry in piece.logprobs]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None},
            "logprobs": self._logprobs(entries) if with_logprobs else None,
            "finish_reason": done.reason,
        }
        return {
            **self._common,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(done),
            "vistrim": done.figures,
        }

    def first(self) -> dict[str, Any]:
        """Return the first chunk, which has the role."""
        return self._chunk({"role": "assistant", "content": ""}, None, None)

    def next(self, piece: Piece) -> dict[str, Any]:
        """Return the chunk of a part of the answer."""
        return self._chunk({"content": piece.text}, None, self._logprobs(piece.logprobs) if piece.logprobs else None)

    def last(self, done: Done) -> dict[str, Any]:
        """Return the last chunk with a choice."""
        return self._chunk({}, done.reason, None) | {"vistrim": done.figures}

    def usage(self, done: Done) -> dict[str, Any]:
        """Return the chunk of the usage, which has no choice."""
        return {**self._common, "object": "chat.completion.chunk", "choices": [], "usage": self._usage(done)}

    def _chunk(self, delta: dict[str, Any], reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._common, "object": "chat.completion.chunk", "choices": [choice]}

    def _usage(self, done: Done) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": self._prompt_tokens + done.completion_tokens,
        }

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        content = [
            self._token(entry.token, entry.logprob) | {"top_logprobs": [self._token(*pair) for pair in entry.top]}
            for entry in entries
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._tokenizer.decode([token])
        # A part of a character has no text of its own.
        known = None if "\ufffd" in text else list(text.encode())
        # JSON has no infinity; OpenAI's API uses this number for it.
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": known}


def event(data: dict[str, Any]) -> bytes:
    """Return a chunk as a server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


END = b"data: [DONE]\n\n"
