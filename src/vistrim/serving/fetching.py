"""Download of images from allowed hosts: HTTPS only, without redirects, from public addresses only."""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from vistrim.serving.errors import RequestError
from vistrim.serving.limits import Limits

PORT = 443
_CHUNK = 64 * 1024
_NOT_FETCHED = (OSError, http.client.HTTPException, ValueError)


def fetch_image(url: str, limits: Limits) -> bytes:
    """Download an image.

    Parameters
    ----------
    url : str
        The URL that a client sent.
    limits : Limits
        Allowed hosts, and the largest size and the longest time of a download.

    Returns
    -------
    bytes
        The body of the answer.

    Raises
    ------
    RequestError
        If the URL is not allowed, or the download fails. The message does not tell what the host answered.
    """
    host, target = _checked(url, limits)
    ends = time.monotonic() + limits.image_seconds
    try:
        address = public_address(host)
        connection = _Connection(host, address, ends)
        try:
            connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            with _ended_in_time(connection.sock, ends):
                answer = connection.getresponse()
                if answer.status != 200:
                    raise _refused("the host does not answer with an image; redirects are not followed")
                return _body(answer, limits)
        finally:
            connection.close()
    except _NOT_FETCHED:
        raise _refused("the download failed") from None


def _checked(url: str, limits: Limits) -> tuple[str, str]:
    """Split an allowed URL into host and path."""
    if not limits.image_hosts:
        raise RequestError(
            "this server reads no URLs: send the image as data:image/png;base64,...",
            code="image_url_not_allowed",
            param="messages",
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _refused("invalid URL") from None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not plain or parts.scheme != "https" or "@" in parts.netloc or port not in (None, PORT):
        raise _refused("only plain https URLs without user or port are read")
    if host not in limits.image_hosts:
        raise _refused("the host is not among those of --allow-image-host")
    return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def public_address(host: str) -> str:
    """Resolve a host once.

    Raises
    ------
    RequestError
        If any of its addresses is not public.
    """
    found = [entry[4][0] for entry in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)]
    if not found or not all(is_public(str(address)) for address in found):
        raise _refused("the host has an address that is not public")
    return str(found[0])


def is_public(address: str) -> bool:
    """Whether an address is reachable from everywhere, and is not a tunnel to an IPv4 address that may not be."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        nat64 = parsed in ipaddress.ip_network("64:ff9b::/96")
        if nat64 or parsed.ipv4_mapped or parsed.sixtofour or parsed.teredo:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


class _Connection(http.client.HTTPSConnection):
    """A connection to an address that was checked: a second look-up of the name could give another one."""

    def __init__(self, host: str, address: str, ends: float) -> None:
        super().__init__(host, PORT, timeout=_left(ends))
        self._address = address

    def connect(self) -> None:
        plain = socket.create_connection((self._address, PORT), self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


def _body(answer: http.client.HTTPResponse, limits: Limits) -> bytes:
    data = bytearray()
    while piece := answer.read1(_CHUNK):
        data += piece
        if len(data) > limits.image_bytes:
            raise _refused(f"it has more than {limits.image_bytes} bytes")
    return bytes(data)


@contextmanager
def _ended_in_time(connected: socket.socket, ends: float) -> Iterator[None]:
    """End a connection in time. The timeout of a socket is for each read, and a host may send byte by byte."""

    def end() -> None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_left(ends), end)
    timer.daemon = True
    timer.start()
    try:
        yield
        # What arrived until then may look complete.
        _left(ends)
    finally:
        timer.cancel()


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refused(reason: str) -> RequestError:
    return RequestError(f"the image URL is refused: {reason}", code="image_url_not_allowed", param="messages")
