"""Downloads of images: only from allowed hosts, over https, from public addresses."""

import contextlib
import http.client
import socket
import threading
import time
from dataclasses import replace

import pytest

from vistrim.serving import fetching
from vistrim.serving.errors import RequestError
from vistrim.serving.limits import Limits

LIMITS = Limits(image_hosts=("images.example.com",), image_bytes=1000, image_seconds=5)
URL = "https://images.example.com/a.png?b=c"


def test_addresses_that_are_not_public_are_refused():
    for address in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"):
        assert fetching.is_public(address)
    for address in (
        *(
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *(
            "::1",
            "fe80::1%eth0",
            "fc00::1",
            "::ffff:93.184.215.14",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "::",
            "ff02::1",
        ),
    ):
        assert not fetching.is_public(address), address


def test_urls_that_are_not_allowed_are_refused_before_any_look_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    for url in (
        "http://images.example.com/a.png",
        "https://other.example.com/a.png",
        "https://images.example.com.evil.com/",
        "https://images.example.com@evil.com/",
        "https://user@images.example.com/",
        "https://images.example.com:8443/",
        "https://evil.com\\@images.example.com/",
        "https://images.example.com/a\r\nX: y",
        "https://images.example.com/a b",
        "https://[::1]/",
        "https://[/",
        "https://images.example.com:x/",
        "file:///etc/passwd",
        "//images.example.com/",
        "",
    ):
        with pytest.raises(RequestError) as refused:
            fetching.fetch_image(url, LIMITS)
        assert refused.value.code == "image_url_not_allowed"
    with pytest.raises(RequestError, match="reads no URLs"):
        fetching.fetch_image(URL, Limits())


@pytest.fixture
def host(monkeypatch):
    """Lets the host answer with given bytes, at a public address. Returns the addresses that were connected to."""
    connected = []

    def answers(data):
        ours, theirs = socket.socketpair()

        def reply():
            theirs.recv(10_000)
            theirs.sendall(data)
            theirs.close()

        threading.Thread(target=reply, daemon=True).start()

        def connect(self):
            connected.append(self._address)
            self.sock = ours

        monkeypatch.setattr(fetching._Connection, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("93.184.215.14", 443))])
        return connected

    return answers


def test_the_body_is_returned_from_the_address_that_was_checked(host):
    connected = host(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert fetching.fetch_image(URL, LIMITS) == b"hello"
    assert connected == ["93.184.215.14"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000,
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_redirects_large_bodies_and_nonsense_are_refused(host, answer):
    host(answer)
    with pytest.raises(RequestError):
        fetching.fetch_image(URL, LIMITS)


def test_a_host_that_sends_byte_by_byte_is_given_up(monkeypatch):
    ours, theirs = socket.socketpair()

    def drip():
        with contextlib.suppress(OSError):
            theirs.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                theirs.sendall(b"x")
                time.sleep(0.005)

    threading.Thread(target=drip, daemon=True).start()
    monkeypatch.setattr(fetching._Connection, "connect", lambda self: setattr(self, "sock", ours))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("93.184.215.14", 443))])
    with pytest.raises(RequestError, match="download failed"):
        fetching.fetch_image(URL, replace(LIMITS, image_seconds=0.1))


def test_a_host_with_a_private_address_is_refused(monkeypatch):
    both = [(2, 1, 6, "", (address, 443)) for address in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(http.client.HTTPSConnection, "request", None)
    with pytest.raises(RequestError, match="not public"):
        fetching.fetch_image(URL, LIMITS)


def test_a_name_that_does_not_resolve_is_refused(monkeypatch):
    def fails(*_, **__):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(RequestError, match="download failed"):
        fetching.fetch_image(URL, LIMITS)
