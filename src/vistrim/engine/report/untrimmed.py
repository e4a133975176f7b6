"""KV cache of an untrimmed model."""

from vistrim.architectures import ModelSpec
from vistrim.engine.attention.flash import sliding_windows


class UntrimmedCache:
    """Computes the contents of the caches of all layers for an untrimmed sequence, with sliding windows."""

    def __init__(self, spec: ModelSpec) -> None:
        shape = spec.decoder_shape
        self._bytes = [shape.at(layer).cached_per_token * spec.dtype.itemsize for layer in range(shape.layers)]
        windows = sliding_windows(spec.decoder.config)
        # A sliding-window layer leaves room for the next token.
        self._windows = [window - 1 if window is not None else None for window in windows]

    def tokens(self, length: int) -> int:
        """Count the tokens held after ``length`` tokens."""
        return sum(self._held(length))

    def nbytes(self, length: int) -> int:
        """Count the bytes held after ``length`` tokens."""
        each = zip(self._bytes, self._held(length), strict=True)
        return sum(size * held for size, held in each)

    def _held(self, length: int) -> list[int]:
        return [length if window is None else min(length, window) for window in self._windows]
