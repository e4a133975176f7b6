"""Resumable storage of results in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from vistrim.errors import InUseError, ResumeError

SETTINGS = "settings"
"""The only key of lines with settings, such as the first line."""
OTHERWISE = "give another --out, or delete it"

T = TypeVar("T")
StoreT = TypeVar("StoreT", bound="Store[Any]")


class Store(Generic[T]):
    """Append-only file of rows by key, with one JSON object per line.

    After `put` returns, its rows survive a kill of the process. An incomplete last line is dropped when the file is
    opened again. While a store is open, no other process can open the same file.

    Parameters
    ----------
    path : Path or None
        The file. Its folder is created if necessary. None: keep the rows in memory only.
    settings : mapping
        Settings that all rows of the file share, as plain Python objects: model, versions, options. The file is created
        with the first row.
    key : sequence of str
        Names of the values that form the key of a row.
    decode : callable
        Converts a row to the stored value. Raises TypeError or KeyError for an invalid row.

    Attributes
    ----------
    rows : dict
        Decoded rows by key. The last one if several have the same key.

    Raises
    ------
    ResumeError
        If the file has rows with different settings (the message names them), is damaged, or is open in another
        process.

    Examples
    --------
    >>> with Store(Path("answers.jsonl"), {"model": "reference"}, ("item",), dict) as store:
    ...     if ("a",) not in store.rows:
    ...         store.put([{"item": "a", "answer": "red"}])
    """

    def __init__(
        self, path: Path | None, settings: Mapping[str, Any], key: Sequence[str], decode: Callable[[dict[str, Any]], T]
    ) -> None:
        self.path, self.rows = path, dict[tuple[Any, ...], T]()
        self._names, self._decode, self._lock = tuple(key), decode, None
        # Settings are compared as read from the file, and JSON has no tuples.
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._written = False
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path)
        try:
            self._load(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self: StoreT) -> StoreT:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file for other processes. The rows remain readable."""
        if self._lock is not None:
            self._lock.release()

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the rows, including claimed ones."""
        return dict(self._settings)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Add settings that only some rows depend on, such as the contents of a method's files.

        Raises
        ------
        ResumeError
            If the file has rows with different values of them. The message names them.
        """
        new = {name: value for name, value in settings.items() if name not in self._settings}
        if differing := differences({**self._settings, **new}, settings):
            raise _other_settings(self.path, differing)
        self._settings |= new
        if new and self._written:
            self._append([{SETTINGS: new}])

    def put(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, or replace those with the same key."""
        # As read from the file, with lists instead of tuples.
        lines = [json.loads(json.dumps(row)) for row in rows]
        if lines:
            self._append(lines if self._written else [{SETTINGS: self._settings}, *lines])
            self._written = True
            for line in lines:
                self._remember(line)

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())

    def _remember(self, row: dict[str, Any]) -> None:
        self.rows[tuple(_hashable(row[name]) for name in self._names)] = self._decode(row)

    def _load(self, path: Path) -> None:
        lines = _whole_lines(path)
        if not lines:
            return
        self._written = True
        found = _header(path, lines[0][1])
        for number, line in lines[1:]:
            if line.keys() == {SETTINGS} and isinstance(line[SETTINGS], dict):
                found |= line[SETTINGS]
                continue
            try:
                self._remember(line)
            except (TypeError, KeyError) as error:
                raise _damaged(path, number) from error
        if differing := differences(found, self._settings):
            raise _other_settings(path, differing)
        self._settings = found


def check_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Compare settings with those of a file, if it exists, without opening it as a store.

    Parameters
    ----------
    path : Path
        File of a store.
    settings : mapping
        Some of the settings.

    Returns
    -------
    dict
        Settings of the file; empty if there is none.

    Raises
    ------
    ResumeError
        If one of them differs. The message names it.
    """
    if not path.exists():
        return {}
    with path.open("rb") as file:
        line = _object(file.readline())
    if line is None:
        return {}
    found = _header(path, line)
    if differing := differences(found, json.loads(json.dumps(settings))):
        raise _other_settings(path, differing)
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the settings that have changed. Empty if none have."""
    return "; ".join(f"{key} {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key])


def _damaged(path: Path, number: int) -> ResumeError:
    return ResumeError(f"{path}, line {number} is damaged: delete that line")


def _locked(path: Path) -> Any:
    # Imported here because it is slow to import.
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InUseError(f"{path} is in use by another run: wait until that ends, or give another --out") from error
    return lock


def _header(path: Path, line: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(found := line.get(SETTINGS), dict):
        raise ResumeError(f"{path} does not begin with its settings: {OTHERWISE}")
    return dict(found)


def _other_settings(path: Path | None, differing: str) -> ResumeError:
    return ResumeError(f"{path} holds results with other settings ({differing}): {OTHERWISE}")


def _whole_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read all lines with their numbers, and remove an incomplete last line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    *lines, last = content.split(b"\n")
    if last:
        os.truncate(path, len(content) - len(last))
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            values = _object(line)
            if values is None:
                raise _damaged(path, number)
            found.append((number, values))
    return found


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
