"""Pages of the repository as pages of the site, with links that lead to where they are there."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
OUTSIDE = "repository/"
"""Folder of the site for linked pages that are not in ``docs/``: results of studies, and cards of models."""
NOTEBOOKS = "notebooks/"
RENAMED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "notebooks/README.md": "notebooks/index.md",
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^( *)(```|~~~)")
SHOWN = (".md", ".ipynb", ".png", ".svg", ".jpg")


def stage(folder: Path, made: Mapping[str, str], repository: str | None = None) -> None:
    """Write the pages of the site.

    Parameters
    ----------
    folder : Path
        Where they are written.
    made : mapping of str to str
        Generated pages by the path that they would have in the repository.
    repository : str, optional
        Address of the repository, to which links to code lead. None: such links become text.
    """
    written = [path for path in (ROOT / "docs").rglob("*.md") if "site" not in path.relative_to(ROOT).parts]
    waiting = [path.relative_to(ROOT).as_posix() for path in written] + ["CHANGELOG.md", "CONTRIBUTING.md", *made]
    done: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        there = folder / place(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        if path not in made and not path.endswith(".md"):
            shutil.copy(ROOT / path, there)
            continue
        text = made[path] if path in made else (ROOT / path).read_text(encoding="utf-8")
        text, linked = relinked(text, path, made, repository)
        there.write_text(text, encoding="utf-8")
        waiting += linked


def place(path: str) -> str:
    """Path of a file of the repository on the site."""
    if path in RENAMED:
        return RENAMED[path]
    if path.startswith(NOTEBOOKS):
        return path.replace(".ipynb", ".md")
    return path.removeprefix(DOCS) if path.startswith(DOCS) else OUTSIDE + path


def relinked(text: str, path: str, made: Mapping[str, str], repository: str | None) -> tuple[str, list[str]]:
    """Point the links of a page to where their targets are on the site.

    Returns
    -------
    text : str
        The page.
    linked : list of str
        Files of the repository that it shows or leads to.
    """
    linked: list[str] = []

    def new(match: re.Match[str]) -> str:
        mark, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or ":" in target:
            return match[0]
        # A label may have an image with a link of its own.
        label = _LINK.sub(new, label)
        there = os.path.normpath(PurePosixPath(path).parent / target)
        if there not in made and not (ROOT / there).exists():
            raise ValueError(f"{path} has a link to {target}, which does not exist")
        if there.endswith(SHOWN):
            if there != "README.md":
                linked.append(there)
            return f"{mark}[{label}]({os.path.relpath(place(there), PurePosixPath(place(path)).parent)}{anchor})"
        return f"[{label}]({repository.rstrip('/')}/blob/main/{there})" if repository else label

    lines, fence = [], ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if found and (not fence or fence == found[2]):
            fence = "" if fence else found[2]
        lines.append(line if fence or found else _LINK.sub(new, line))
    return "\n".join(lines) + "\n", linked
