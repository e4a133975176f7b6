"""The page of all commands and their options."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from vistrim.cli.app import app

INTRODUCTION = (
    "It exits with 0 on success, 1 if it failed, and 2 if it was called wrongly, and prints errors as one line.\n\n"
)


def page() -> str:
    """Make the page from the application itself."""
    return (
        "# Commands\n\nEvery command prints its options with `--help`. "
        + INTRODUCTION
        + "\n".join(line for name, command in _all("vistrim", get_command(app)) for line in _section(name, command))
    )


def _all(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for word, each in below.items():
        yield from _all(f"{name} {word}", each)


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    yield f"## `{name}`\n\n{_plain(command.help)}\n"
    yield f"```text\n{' '.join([name, *map(_usage, arguments), '[OPTIONS]'])}\n```\n"
    yield "| option | default | meaning |\n|---|---|---|"
    for each in [*arguments, *options]:
        shown = _usage(each) if each in arguments else ", ".join([*each.opts, *each.secondary_opts])
        yield f"| `{shown}` | {_default(each)} | {_plain(each.help).replace('|', '/')} |"
    yield ""


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _default(parameter: Any) -> str:
    """Default of a parameter, if it is a plain value that says something, or its description."""
    if isinstance(parameter.show_default, str):
        return _plain(parameter.show_default)
    value = parameter.default
    if isinstance(value, bool) or value is None or value == "" or not isinstance(value, (str, int, float)):
        return ""
    return f"`{value}`"


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("<", "&lt;").split())
