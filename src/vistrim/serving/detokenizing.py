"""Text of tokens that arrive one by one."""

from typing import Any

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Converts tokens to text as they arrive.

    Tokenizers join tokens in their own ways, and a character may consist of several tokens. Therefore the new text is
    the difference of two decoded windows, which begin a few tokens earlier.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._begin = self._read = 0

    def add(self, token: int) -> str:
        """Return the text that a token adds; empty while a character is incomplete."""
        self._tokens.append(token)
        return self._advance(is_last=False)

    def finish(self) -> str:
        """Return the rest of the text."""
        return self._advance(is_last=True)

    def _advance(self, is_last: bool) -> str:
        before = self._decode(self._tokens[self._begin : self._read])
        after = self._decode(self._tokens[self._begin :])
        if len(after) <= len(before) or (after.endswith(_INCOMPLETE) and not is_last):
            return ""
        self._begin, self._read = self._read, len(self._tokens)
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
