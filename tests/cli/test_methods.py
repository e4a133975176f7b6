import json

import vistrim as library
from tests.cli.invoke import vistrim
from vistrim.methods.base import notation


def test_the_table_shows_every_method_and_whose_choice_the_defaults_are():
    result = vistrim("methods")
    assert result.exit_code == 0
    for info in library.list_methods():
        assert info.name in result.stdout
        assert all(f"{name}={notation(value)}" in result.stdout for name, value in info.parameters.items())
    assert "own choice" in result.stdout


def test_the_table_as_json():
    result = vistrim("methods", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert [row["name"] for row in answer["methods"]] == [info.name for info in library.list_methods()]
    st3 = next(row for row in answer["methods"] if row["name"] == "st3")
    assert st3["stages"] == ["prefill", "decode"]
    assert st3["parameters"]["ratio"] == 0.3
    assert "own choice" in answer["note"]


def test_version():
    assert vistrim("--version").stdout == f"vistrim {library.__version__}\n"


def test_help_without_a_command():
    result = vistrim()
    assert result.exit_code == 0
    assert "methods" in result.stdout
    assert "run" in result.stdout
