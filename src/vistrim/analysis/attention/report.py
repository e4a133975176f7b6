"""The result of an analysis: its figures, and the files written from them."""

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
    """Result of `analyze`: attention of a model, and the quality of its rankings of visual tokens.

    Attributes
    ----------
    figures : dict
        ``groups``: for "all" questions, and for each group of tasks if there are several, the figures that
        ``analysis.md`` defines. Lists are by layer.
    settings : dict
        Model, layers, rankings and other settings of the analysis.
    """

    figures: dict[str, Any]
    settings: dict[str, Any]

    @staticmethod
    def of(records: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> Analysis:
        """Summarize the records of questions.

        Parameters
        ----------
        records : sequence of dict
            One per question; see `vistrim.analysis.attention.record.record`.
        settings : mapping
            Settings of the analysis.

        Returns
        -------
        Analysis
        """
        groups = {name: summarize(some) for name, some in groups_of(records).items()}
        return Analysis({"groups": groups}, dict(settings))

    def tables(self) -> list[Table]:
        """Return the figures as tables for the terminal and for Markdown.

        Returns
        -------
        list of Table
        """
        return tables(self.figures, self.settings)

    def write(
        self, folder: str | Path, command: str = "", title: str = "a model", grid: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Write ``analysis.json``, ``analysis.md`` and the plots.

        Parameters
        ----------
        folder : str or Path
            Folder of the files; created if it does not exist.
        command : str
            Command that repeats the analysis.
        title : str
            Name of the model.
        grid : tuple of int, optional
            Rows and columns of the visual tokens, if each prompt has one image of the same size.

        Returns
        -------
        dict
            The content of ``analysis.json``.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        # Importing matplotlib is slow, and reading the figures does not need it.
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
