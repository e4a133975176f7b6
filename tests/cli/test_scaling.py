"""``vistrim calibrate scaling``: what the scaling law says."""

import json

import pytest

from tests.cli.invoke import error_line, vistrim


def test_scaling(tmp_path):
    plot = tmp_path / "scaling.png"
    result = vistrim("calibrate", "scaling", "--text-tokens", "50", "--flops", "1e12", "--plot", str(plot))
    assert result.exit_code == 0
    for text in ("13.5", "12.1", "576.0", "no measurement of other models"):
        assert text in " ".join(result.stdout.split())
    assert plot.read_bytes().startswith(b"\x89PNG")
    sizes = ("--size", "7", "--size", "14")
    found = json.loads(vistrim("calibrate", "scaling", "--flops", "1e12", *sizes, "--json").stdout)
    assert [choice["parameters"] for choice in found["choices"]] == [7]
    assert found["choices"][0]["visual_tokens"] == 21


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--law", "newton"], "no law 'newton': choose published"),
        (["--size", "0"], "above 0"),
        (["--flops", "1e9"], "too small for 50 text tokens"),
        (["--plot", "plot.jpg"], ".png"),
        (["--plot", "no/such/place.png"], "folder that exists"),
        (["--text-tokens", "-1"], "--text-tokens"),
    ],
)
def test_scaling_that_cannot_be_had(arguments, says):
    result = vistrim("calibrate", "scaling", *arguments)
    assert result.exit_code == 2
    assert says in error_line(result)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = vistrim("calibrate", "scaling", "--plot", str(tmp_path / "s.png"))
    assert result.exit_code == 1
    assert "pip install 'vistrim[eval]'" in error_line(result)
