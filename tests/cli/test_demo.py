"""``vistrim demo``: the model, the page and the link that is opened."""

import threading
import webbrowser
from importlib.util import find_spec

import pytest

from tests.cli.invoke import error_line
from tests.cli.invoke import vistrim as invoke
from vistrim.errors import LoadError


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "fastapi" else find_spec(name))
    result = invoke("demo")
    assert result.exit_code == 1
    assert "fastapi" in error_line(result)


def test_the_help_names_the_command_with_more_options():
    assert "vistrim serve --demo" in " ".join(invoke("demo", "--help").stdout.split())


@pytest.fixture
def listening(monkeypatch):
    """The applications that would be served. Nothing listens."""
    pytest.importorskip("fastapi")
    apps = []

    def listen(app, host, port, deadline, announce):
        assert (host, port) == ("127.0.0.1", 8000)
        apps.append(app)
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("vistrim.cli.demo.free_port", lambda host, port: port)
    monkeypatch.setattr("vistrim.cli.demo.listen", listen)
    return apps


def test_the_link_is_opened_unless_it_is_only_to_be_printed(listening, monkeypatch):
    opened, links = threading.Event(), []
    monkeypatch.setattr(webbrowser, "open", lambda link: links.append(link) or opened.set())
    result = invoke("demo", "reference-small", "--no-open")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("demo of reference-small at http://127.0.0.1:8000/demo#method=st3%40tokens%3D0.33&")
    assert not links
    assert {"/v1/vistrim/regions", "/v1/chat/completions"} <= listening[0].openapi()["paths"].keys()
    invoke("demo", "reference-small")
    assert opened.wait(10)
    assert links == [result.stdout.split()[-1]]


@pytest.mark.parametrize(("is_installed", "expected"), [(True, "reference-lm"), (False, "reference")])
def test_the_best_installed_reference_model_is_served(listening, monkeypatch, is_installed, expected):
    def weights_path(name):
        if not is_installed:
            raise LoadError("it needs its weights")

    loaded = []

    def load_model(name, dtype, device):
        loaded.append(name)
        raise LoadError("enough")

    monkeypatch.setattr("vistrim.shipped.weights_path", weights_path)
    monkeypatch.setattr("vistrim.cli.models.load_model", load_model)
    assert invoke("demo").exit_code == 1
    assert loaded == [expected]
