"""The page of a leaderboard, as Markdown or HTML, with its plot."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from vistrim._utils.files import write_whole
from vistrim.leaderboard.boards import Board
from vistrim.leaderboard.plot import plot

TITLE = "Leaderboard"
DEFINITIONS = (
    "score: mean of the metric that the protocol names",
    "retained: score divided by the untouched model's in the same table, of the same versions if there is one, if both "
    "are over the same number of items",
    "tokens: visual tokens per layer in prefill, mean over layers",
    "FLOPs: those of the decoder in prefill and of the method's own networks, as a share of the untouched prefill",
    "KV mean: bytes divided by the untouched model's at the same step, mean over steps",
    "results of different protocols (tool, questions, metric, length of answers) are in different tables",
)
_STYLE = """\
body { font-family: sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: 0.2rem 0.6rem; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }"""
HTML = (".html", ".htm")


def write_page(path: Path, boards: Sequence[Board]) -> list[Path]:
    """Write the page and its plot.

    Parameters
    ----------
    path : Path
        HTML if it ends so, otherwise Markdown. The plot lies beside it, with the same name.
    boards : sequence of Board
        One table each.

    Returns
    -------
    list of Path
        The files. There is no plot if no result has a score.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.with_suffix(".png")
    drawn = plot(boards, picture)
    write = _html if path.suffix.lower() in HTML else _markdown
    write_whole(path, write(boards, picture.name if drawn else None))
    return [path, picture] if drawn else [path]


def _markdown(boards: Sequence[Board], picture: str | None) -> str:
    parts = [f"# {TITLE}"]
    parts += [f"![score against cost]({picture})"] if picture else []
    for board in boards:
        parts += [board.table().markdown(), board.details]
    parts.append("\n".join(f"* {line}" for line in DEFINITIONS))
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(boards: Sequence[Board], picture: str | None) -> str:
    parts = [f"<h1>{TITLE}</h1>"]
    parts += [f'<img src="{escape(picture)}" alt="score against cost">'] if picture else []
    for board in boards:
        table = board.table()
        lines = [_line("th", table.columns), *(_line("td", row) for row in table.rows)]
        parts += [f"<h2>{escape(table.title)}</h2>", f"<p>{escape(board.details)}</p>"]
        parts.append("\n".join(["<table>", *lines, "</table>"]))
    parts.append("\n".join(["<ul>", *(f"<li>{escape(line)}</li>" for line in DEFINITIONS), "</ul>"]))
    head = f'<meta charset="utf-8">\n<title>{TITLE}</title>\n<style>\n{_STYLE}\n</style>'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _line(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>"
