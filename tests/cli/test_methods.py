import json

import vistrim as library
from tests.cli.invoke import error_line, vistrim
from tests.families.refused import REFUSED
from tests.families.zoo import FAMILIES
from vistrim import support
from vistrim.methods.base.parameter_text import write_value


def test_the_table_shows_every_method_and_whose_choice_the_defaults_are():
    result = vistrim("methods")
    assert result.exit_code == 0
    for info in library.list_methods():
        assert info.name in result.stdout
        assert all(f"{name}={write_value(value)}" in result.stdout for name, value in info.parameters.items())
    assert "own choice" in result.stdout


def test_the_table_as_json():
    result = vistrim("methods", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert [row["name"] for row in answer["methods"]] == [info.name for info in library.list_methods()]
    st3 = next(row for row in answer["methods"] if row["name"] == "st3")
    assert st3["stages"] == ["prefill", "decode"]
    assert st3["parameters"]["drop_per_cut"] == 0.5
    assert "own choice" in answer["note"]


def test_one_method_alone(checkpoint):
    result = vistrim("methods", "fastv")
    assert result.exit_code == 0
    assert "fastv" in result.stdout
    for other in ("pyramiddrop", "own choice"):
        assert other not in result.stdout
    assert "own choice" in vistrim("methods", "st3").stdout
    for arguments in ((), ("--model", checkpoint)):
        answer = json.loads(vistrim("methods", "fastv", *arguments, "--json").stdout)
        assert [row["name"] for row in answer["methods"]] == ["fastv"]
        result = vistrim("methods", "fastw", *arguments)
        assert result.exit_code == 2
        assert "did you mean 'fastv'?" in error_line(result)


def test_version():
    assert vistrim("--version").stdout == f"vistrim {library.__version__}\n"


def test_help_without_a_command():
    result = vistrim()
    assert result.exit_code == 0
    assert "methods" in result.stdout
    assert "run" in result.stdout


def test_support_of_a_model(checkpoint):
    result = vistrim("methods", "--model", checkpoint)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "llava (tested)" in words
    assert "4 x 4 tokens" in words
    for info in library.list_methods():
        assert info.name in words


def test_support_of_a_model_as_json(checkpoint):
    result = vistrim("methods", "--model", checkpoint, "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["model"]["model_type"] == "llava"
    assert answer["model"]["grid"] == [4, 4]
    assert [row["name"] for row in answer["methods"]] == [info.name for info in library.list_methods()]
    runs = {row["name"]: row["runs"] for row in answer["methods"]}
    assert (runs["st3"], runs["sgl"]) == ("yes", "needs")


def test_windows_are_named_by_layer(tmp_path):
    FAMILIES["gemma3"].config().save_pretrained(tmp_path)
    result = vistrim("methods", "--model", str(tmp_path))
    assert "16 tokens in layers 0, 2" in " ".join(result.stdout.split())


def test_reference_models_are_called_by_their_names_and_nothing_is_cut():
    for arguments in (("--model", "reference"), ()):
        shown = vistrim("methods", *arguments).stdout
        assert "…" not in shown
    assert "LlavaForConditionalGeneration reference │" in " ".join(
        vistrim("methods", "--model", "reference").stdout.split()
    )


def test_an_untested_family_is_called_one(checkpoint, monkeypatch):
    monkeypatch.setattr(support, "TESTED", ())
    words = " ".join(vistrim("methods", "--model", checkpoint).stdout.split())
    assert "not among vistrim's tested families" in words


def test_a_refused_model_fails_with_the_reason(tmp_path):
    REFUSED["mllama"].config().save_pretrained(tmp_path)
    result = vistrim("methods", "--model", str(tmp_path))
    assert result.exit_code == 1
    assert "no placeholder tokens" in error_line(result)


def test_a_missing_model(tmp_path):
    result = vistrim("methods", "--model", str(tmp_path / "missing"))
    assert result.exit_code == 1
    assert "no model directory" in error_line(result)
