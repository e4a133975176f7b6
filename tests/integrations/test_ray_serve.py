"""The server on a real Ray cluster of this machine: a replica that dies loses no request that can be repeated."""

import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

pytest.importorskip("ray.serve")

from tests.integrations.ray_applications import slow_app
from vistrim.integrations.ray import Pool
from vistrim.integrations.ray_serve import Replica, deployment, serve_on
from vistrim.serving.app import create_app
from vistrim.serving.limits import Limits

pytestmark = pytest.mark.slow

NAME = "reference-small"
STREAMS, WHOLE = 8, 6


@pytest.fixture
def handlers():
    """Those for signals, which the server replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url, stream, **settings):
    """Open the answer to a request."""
    body = {"model": NAME, "messages": [{"role": "user", "content": "describe the image ."}], "stream": stream}
    body |= {"temperature": 2, "max_tokens": 500} | settings
    headers = {"content-type": "application/json", "authorization": "Bearer key"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=300)


def replica_of(url):
    """The replica that answers, by its metrics."""
    request = urllib.request.Request(f"{url}/metrics", headers={"authorization": "Bearer key"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return answer.read().decode().partition('replica="')[2].partition('"')[0]


def kill(replica):
    """End the process of a replica, as if memory had run out."""
    import ray

    ray.kill(ray.get_actor(f"SERVE_REPLICA::vistrim#vistrim#{replica}", namespace="serve"))


def check(url):
    """Use a server with two replicas, and end one of them. Returns how the streams ended."""
    replicas = {replica_of(url) for _ in range(30)}
    assert len(replicas) == 2
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url, False, model="other")
    assert json.load(refused.value)["error"]["code"] == "model_not_found"

    killed, begun = threading.Event(), threading.Barrier(STREAMS + 1)

    def stream(number):
        with ask(url, True, seed=number) as answer:
            first = answer.readline()
            begun.wait(300)
            assert killed.wait(300)
            return [line for line in (first, *answer) if line.strip()][-1]

    def whole(number):
        with ask(url, False, seed=number, max_tokens=40) as answer:
            return json.load(answer)["choices"][0]["finish_reason"]

    with ThreadPoolExecutor(STREAMS + WHOLE) as pool:
        streams = [pool.submit(stream, n) for n in range(STREAMS)]
        # They wait behind the streams, in both replicas.
        others = [pool.submit(whole, n) for n in range(WHOLE)]
        begun.wait(300)
        kill(replicas.pop())
        killed.set()
        assert {each.result() for each in others} <= {"stop", "length"}
        return [each.result() for each in streams]


def test_a_dead_replica_loses_only_the_streams_that_it_had_begun(handlers, free_port):
    make_app = partial(slow_app, name=NAME, api_key="key")
    # Streams that begin together share a batch.
    replica = Replica(NAME, "float32", "cpu", 8, 1.0, make_app)
    found = []

    def client(url):
        try:
            found.extend(check(url))
            with ask(url, True) as answer:
                assert answer.readline()
                os.kill(os.getpid(), signal.SIGTERM)
                found.append(answer.readlines()[-2])
        except BaseException:
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    with ThreadPoolExecutor(1) as pool:
        asked = []
        address = os.environ.get("RAY_TEST_ADDRESS", "local")
        serve_on(
            address,
            replica,
            (2, 2),
            host="127.0.0.1",
            port=free_port,
            limits=Limits(deadline=300),
            announce=lambda url: asked.append(pool.submit(client, url)),
        )
        asked[0].result()
    *ends, last = found
    complete = [end for end in ends if end == b"data: [DONE]\n"]
    errors = [json.loads(end.removeprefix(b"data: "))["error"]["code"] for end in ends if end not in complete]
    assert complete
    assert errors
    assert set(errors) == {"no_replica"}
    assert last == b"data: [DONE]\n"


def test_a_range_follows_the_requests_inside_and_replicas_get_whole_gpus():
    replica = Replica(NAME, "float32", "cpu", 8, 0.01, partial(create_app, name=NAME))
    fixed = deployment(replica, Pool(2, 0.5, 1.0, gpus=1), 2, 2, Limits())
    assert (fixed.num_replicas, fixed.ray_actor_options["num_gpus"]) == (2, 1)
    follows = deployment(replica, Pool(4, 0.0, 0.5), 1, 4, Limits())
    scaling = follows._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 8)
    assert follows.ray_actor_options["num_gpus"] == 0
