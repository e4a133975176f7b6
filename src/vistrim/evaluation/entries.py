"""Results in the one form that `vistrim leaderboard` merges, whichever tool they come from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim.errors import InputError

ENTRIES = "leaderboard.json"
"""Name of the file in a folder of results."""
SCHEMA = 1
VERSIONS = ("vistrim", "transformers", "torch", "python")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The result of one method, or of the untouched model, on one set of questions.

    Attributes
    ----------
    protocol : dict of str to (str, int, float, bool or None)
        Everything that results must share to be compared: tool, task, digest of the questions, metric, longest answer,
        and so on. Rows of different protocols are never in the same table.
    model, method : str
        Name of the model, and notation of the method, or "untouched".
    budget : str or None
        Budget to which the method was set, such as ``"tokens=0.33"``.
    score : float or None
        Mean of the metric that the protocol names; None if there is none.
    items : int
        Number of questions that count.
    errors : int
        Number of questions that are left out because they failed.
    tokens : float or None
        Visual tokens per layer in prefill, mean over layers and questions.
    flops : float or None
        FLOPs in prefill and of the method's own networks, as a share of the untouched model's in prefill.
    kv : float or None
        KV bytes divided by those of the untouched model, mean over steps and questions.
    versions : dict of str to str
        Versions of vistrim, transformers, torch and Python, and of the tool if it is another.
    commit : str or None
        Commit of vistrim; None for an installed release.
    """

    protocol: dict[str, Any]
    model: str
    method: str
    budget: str | None = None
    score: float | None
    items: int
    errors: int = 0
    tokens: float | None
    flops: float | None
    kv: float | None
    versions: dict[str, str] = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: stamp()["commit"])


def versions(**others: str) -> dict[str, str]:
    """Versions of this installation, and of other packages by name."""
    found = stamp()
    return {name: found[name] for name in VERSIONS} | others


def write_entries(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write the entries of a folder of results; the file replaces a former one.

    Returns
    -------
    Path
        The file.
    """
    # Imported late: it imports torch.
    from vistrim._utils.files import write_whole

    path = folder / ENTRIES
    content = {"schema": SCHEMA, "entries": [asdict(entry) for entry in entries]}
    write_whole(path, json.dumps(content, indent=2) + "\n")
    return path


def read_entries(folder: Path) -> list[Entry]:
    """Read the entries of a folder of results.

    Raises
    ------
    InputError
        If there are none, or they are not of this version's schema; the message names the file.
    """
    path = folder / ENTRIES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} has no {ENTRIES} ({error.strerror}): give results of `vistrim eval`, `batch` or lmms-eval"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): repeat the command that wrote it") from error
    if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}: repeat the command that wrote it with this version")
    known = {attribute.name for attribute in fields(Entry)}
    try:
        return [Entry(**{name: value for name, value in row.items() if name in known}) for row in content["entries"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} has an incomplete entry ({error}): repeat the command that wrote it") from error
