"""What clients get from the proxy of Ray Serve if replicas die, without Ray."""

import asyncio
import json

import pytest

from vistrim.integrations.ray_proxy import ATTEMPTS, Recovering

BODY = [b'{"a', b'": 1}']
JSON, EVENTS, TEXT = b"application/json", b"text/event-stream; charset=utf-8", b"text/plain; charset=utf-8"


def start(content_type, status=200):
    return {"type": "http.response.start", "status": status, "headers": [[b"Content-Type", content_type]]}


def part(body, more=False):
    return {"type": "http.response.body", "body": body, "more_body": more}


GOOD = [start(JSON), part(b"{}")]
LATE = [start(JSON)]
DEAD: list = []


def served(*answers, path="/v1/chat/completions", disconnects=False):
    """Statuses, body and number of attempts, if the n-th attempt sends the n-th answer."""
    left, sent, bodies = list(answers), [], []
    parts = [{"type": "http.request", "body": piece, "more_body": piece == BODY[0]} for piece in BODY]
    received = [*parts[:1], {"type": "http.disconnect"}] if disconnects else parts

    async def proxy(scope, receive, send):
        scope["headers"].append((b"x-request-id", b"a"))
        assert len(scope["headers"]) == 1, "the headers of an earlier attempt"
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        bodies.append(body)
        for message in left.pop(0):
            await send(message)

    async def receive():
        return received.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(Recovering(proxy)({"type": "http", "path": path, "headers": []}, receive, send))
    if not disconnects:
        assert set(bodies) == {b"".join(BODY)}
    statuses = [message["status"] for message in sent if message["type"] == "http.response.start"]
    body = b"".join(message["body"] for message in sent if message["type"] == "http.response.body")
    return statuses, body, len(bodies)


@pytest.mark.parametrize("dies", [DEAD, LATE], ids=["nothing", "only headers"])
def test_a_request_runs_again_if_its_answer_had_not_begun(dies):
    assert served(GOOD) == ([200], b"{}", 1)
    assert served(dies, GOOD) == ([200], b"{}", 2)
    statuses, body, attempts = served(*[dies] * ATTEMPTS)
    assert (statuses, attempts) == ([503], ATTEMPTS)
    assert json.loads(body)["error"]["code"] == "no_replica"


def test_a_stream_that_had_begun_ends_with_an_error():
    statuses, body, attempts = served([start(EVENTS), part(b"data: 1\n\n", more=True)])
    assert (statuses, attempts) == ([200], 1)
    first, last, end = body.split(b"\n\n")
    assert (first, end) == (b"data: 1", b"")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "no_replica"
    whole = [start(EVENTS), part(b"data: 1\n\n", more=True), part(b"")]
    assert served(whole) == ([200], b"data: 1\n\n", 1)


def test_errors_of_serve_become_error_objects_and_those_of_the_application_stay():
    for status, expected, code in ((500, 503, "no_replica"), (404, 503, "no_replica"), (408, 504, "deadline_exceeded")):
        statuses, body, attempts = served([start(TEXT, status), part(b"Internal Server Error")])
        assert (statuses, attempts) == ([expected], 1)
        assert json.loads(body)["error"]["code"] == code
    assert served([start(JSON, 500), part(b"{}")]) == ([500], b"{}", 1)


def test_other_paths_and_clients_that_have_gone_are_left_alone():
    assert served([start(TEXT, 404), part(b"no")], path="/other") == ([404], b"no", 1)
    assert served(DEAD, GOOD, disconnects=True) == ([], b"", 1)
