"""What an untrimmed model would hold."""

from vistrim.architectures import ModelSpec
from vistrim.engine.flash import sliding_windows


class UntrimmedCache:
    """Counts what the caches of all layers together hold of an untrimmed sequence, sliding windows included.

    Attributes
    ----------
    bytes_per_token : int
        Bytes of one token's key and value in one layer.
    """

    def __init__(self, spec: ModelSpec) -> None:
        shape = spec.decoder_shape
        self.bytes_per_token = 2 * shape.kv_heads * shape.head_dim * spec.dtype.itemsize
        windows = sliding_windows(spec.decoder.config)
        # A sliding layer makes room for the token to come.
        self._windows = [window - 1 if window is not None else None for window in windows]

    def tokens(self, length: int) -> int:
        """Tokens held after ``length`` tokens were seen."""
        return sum(length if window is None else min(length, window) for window in self._windows)

    def nbytes(self, length: int) -> int:
        """Bytes held after ``length`` tokens were seen."""
        return self.bytes_per_token * self.tokens(length)
