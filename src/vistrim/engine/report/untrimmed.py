"""What an untrimmed model would hold."""

from vistrim.architectures import ModelSpec
from vistrim.engine.attention.flash import sliding_windows


class UntrimmedCache:
    """Counts what the caches of all layers together hold of an untrimmed sequence, sliding windows included."""

    def __init__(self, spec: ModelSpec) -> None:
        shape = spec.decoder_shape
        self._bytes = [shape.at(layer).cached_per_token * spec.dtype.itemsize for layer in range(shape.layers)]
        windows = sliding_windows(spec.decoder.config)
        # A sliding layer makes room for the token to come.
        self._windows = [window - 1 if window is not None else None for window in windows]

    def tokens(self, length: int) -> int:
        """Tokens held after ``length`` tokens were seen."""
        return sum(self._held(length))

    def nbytes(self, length: int) -> int:
        """Bytes held after ``length`` tokens were seen."""
        each = zip(self._bytes, self._held(length), strict=True)
        return sum(size * held for size, held in each)

    def _held(self, length: int) -> list[int]:
        return [length if window is None else min(length, window) for window in self._windows]
