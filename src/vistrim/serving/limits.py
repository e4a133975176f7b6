"""Limits of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server accepts. A request beyond a limit is refused before it costs more than reading it.

    Attributes
    ----------
    body_bytes : int
        Largest body of a request (413).
    messages : int
        Most messages of a conversation.
    characters : int
        Most characters of all texts of a conversation.
    images : int
        Most images of a conversation.
    pixels : int
        Most pixels of all its images together.
    prompt_tokens : int or None
        Longest prompt in tokens, including visual tokens. None: the context of the model.
    answer_tokens : int
        Longest answer in tokens, and the default.
    queue : int
        Most requests that wait for their turn (429).
    deadline : float
        Seconds from the arrival of a request to the end of its answer (504).
    trace : bool
        Whether requests may ask for the trace of kept tokens.
    image_hosts : tuple of str
        Hosts from which images are downloaded. Empty: images are accepted as base64 only.
    image_bytes : int
        Largest downloaded image.
    image_seconds : float
        Longest download of an image.

    Raises
    ------
    ValueError
        If a limit is not positive.
    """

    body_bytes: int = 20 * 2**20
    messages: int = 64
    characters: int = 200_000
    images: int = 8
    pixels: int = 24_000_000
    prompt_tokens: int | None = None
    answer_tokens: int = 512
    queue: int = 64
    deadline: float = 120.0
    trace: bool = False
    image_hosts: tuple[str, ...] = ()
    image_bytes: int = 10 * 2**20
    image_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"{name}={value}: a limit must be above 0")
