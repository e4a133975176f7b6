"""``vistrim serve``: its options, and a process from start to SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest

from tests.cli.invoke import error_line
from tests.cli.invoke import vistrim as invoke


@pytest.mark.parametrize(("package", "extra"), [("uvicorn", "serve"), ("ray", "ray")])
def test_a_missing_package_is_named(monkeypatch, package, extra):
    if extra == "ray":
        pytest.importorskip("fastapi")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find_spec(name))
    result = invoke("serve", *(["--ray", "local"] if extra == "ray" else []))
    assert result.exit_code == 1
    assert package in error_line(result).lower()
    assert f"pip install 'vistrim[{extra}]'" in result.stderr


@pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra `serve`")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--method", "sst3"], "st3"),
        (["--method", "st3", "--method", "st3"], "--method st3 is given twice"),
        (["--method", "a=st3", "--method", "a=fastv"], "--method a is given twice"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--replicas", "2"], "--ray"),
        (["--ray", "local", "--replicas", "3:2"], "1:4"),
        (["--allow", "nothing", "reference-small"], "nothing"),
        (["--method", "fastv:layer=9", "reference-small"], "layer"),
        (["--budget", "x"], "is no budget"),
        (["--method", "blind", "--budget", "tokens=0.5", "reference-small"], "blind cannot be set to a budget"),
    ],
)
def test_wrong_options_are_refused(options, named):
    result = invoke("serve", "--port", "0", *options)
    assert result.exit_code == 2
    assert named in error_line(result)


@pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra `serve`")
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_in_use_is_refused_before_the_model_is_loaded(monkeypatch, command):
    monkeypatch.setattr("vistrim.cli.models.load_model", lambda *_: pytest.fail("the model is loaded"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = invoke(command, "reference-small", "--port", str(port))
    assert result.exit_code == 1
    assert error_line(result).startswith(f"cannot listen on 127.0.0.1:{port} (address already in use): ")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("fastapi") is None, reason="needs the extra `serve`")
def test_a_process_answers_and_ends_what_it_began_after_sigterm():
    command = [sys.executable, "-m", "vistrim", "serve", "reference-small", "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--method", "small=fastv:keep=0.1"], **pipes, text=True) as server:
        started = json.loads(server.stdout.readline())
        assert (started["model"], started["methods"]) == ("reference-small", ["small"])
        body = {
            "model": "reference-small:small",
            "messages": [{"role": "user", "content": "describe the image ."}],
            "stream": True,
            "temperature": 2,
            "max_tokens": 200,
        }
        request = urllib.request.Request(
            f"{started['url']}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.readline().startswith(b"data: {")
            os.kill(server.pid, signal.SIGTERM)
            assert answer.read().endswith(b"data: [DONE]\n\n")
        # The status of a process that ended because of the signal, but after its work.
        assert server.wait(60) == -signal.SIGTERM
        *_, last = server.stderr
        assert last == "INFO vistrim.serving stopped\n"
