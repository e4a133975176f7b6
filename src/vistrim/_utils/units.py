"""Formatting of bytes and seconds."""


def bytes_text(n: float) -> str:
    """Format as bytes, KiB, MiB or GiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n:.0f} bytes"


def seconds_text(seconds: float) -> str:
    """Format with three digits, in milliseconds below one second."""
    if seconds == 0:
        return "0 ms"
    # Values that round to 1000 ms are shown as 1 s.
    if abs(seconds) >= 0.9995:
        return f"{_three_digits(seconds)} s"
    return f"{_three_digits(1e3 * seconds)} ms"


def _three_digits(value: float) -> str:
    decimals = next((n for n, bound in ((0, 99.95), (1, 9.995), (2, 0.9995)) if abs(value) >= bound), 3)
    return f"{value:.{decimals}f}"
