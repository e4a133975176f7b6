"""An analysis: its figures, and the files made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.files import write_whole
from vistrim._utils.tables import Table
from vistrim.analysis.attention.summary import groups_of, summarize
from vistrim.analysis.attention.tables import DEFINITIONS, tables


@dataclass(frozen=True)
class Analysis:
    """What a model attends to, and what its rankings are worth.

    Attributes
    ----------
    figures : dict
        ``groups``: for "all" questions, and for each group of tasks if there are several, the figures that
        ``analysis.md`` defines. Lists are by layer.
    settings : dict
        What was analyzed, how.
    """

    figures: dict[str, Any]
    settings: dict[str, Any]

    @staticmethod
    def of(records: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> Analysis:
        """Sum up the records of questions."""
        groups = {name: summarize(some) for name, some in groups_of(records).items()}
        return Analysis({"groups": groups}, dict(settings))

    def tables(self) -> list[Table]:
        """For the terminal and for Markdown."""
        return tables(self.figures, self.settings)

    def write(
        self, folder: str | Path, command: str = "", title: str = "a model", grid: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Write ``analysis.json``, ``analysis.md`` and the plots.

        Parameters
        ----------
        folder : str or Path
            Made where it is missing.
        command : str
            That repeats the analysis.
        title : str
            Whose attention it is.
        grid : tuple of int, optional
            Rows and columns of the visual tokens, where each prompt has one image of one size.

        Returns
        -------
        dict
            The content of ``analysis.json``.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        # matplotlib takes a while to import: not for those who only look at the figures.
        from vistrim.analysis.attention.plots import draw

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        found = {"environment": stamp(), "command": command, "settings": self.settings, **self.figures}
        write_whole(folder / "analysis.json", json.dumps(found) + "\n")
        plots = draw(self.figures["groups"], self.settings, folder, grid)
        write_whole(folder / "analysis.md", self._markdown(command, title, plots))
        return found

    def _markdown(self, command: str, title: str, plots: Mapping[str, str]) -> str:
        parts = [f"# Attention of {title}"]
        if command:
            parts.append(f"```\n{command}\n```")
        parts.append(", ".join(f"{key} {value}" for key, value in self.settings.items()))
        parts.append(DEFINITIONS)
        parts += [f"![{text}]({name})" for name, text in plots.items()]
        parts += [table.markdown() for table in self.tables()]
        return "\n\n".join(parts) + "\n"
