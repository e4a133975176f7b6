"""What `vistrim.at_budget` reaches with every registered method.

    python -m studies.budgets.measure --model reference --method sgl:guide=reference-small
    python -m studies.budgets.measure --model llava-next-7b --layers 8 --hidden 128

Every method is set to every budget and run once. The value in its report has to be the planned one, and a search of its
own has to find no larger value at or below the budget; else the command fails. ``results/MODEL.json`` and
``results/MODEL.md`` have all rows, with the reason where a method has no value. The model is one that ``vistrim bench``
takes: a reference model, a local directory, a Hugging Face id, or a named shape with random weights.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track

from studies.budgets.rows import Row, row
from studies.record import portable, record
from vistrim import list_methods
from vistrim._utils.environment import stamp
from vistrim._utils.tables import Table
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.subject import Wanted

BUDGETS = (
    *(("tokens", share) for share in (0.5, 0.33, 0.11)),
    *(("flops", share) for share in (0.5, 0.33)),
    *(("kv", share) for share in (0.6, 0.4)),
)
COMPOSED = ("uniform+vta:horizon=16", "fastervlm+st3")
NOTE = """
A cell is the value that the method reaches at the budget of its column, as planned and as in the report of a run. In
parentheses: tokens in every layer that are left to the budget (for `kv`, in every layer and step). Bold: one or more.
The parameter is then a grid (`pool`, `downsample`), a layer (`vtw`), a number per pivot (`dart`) or two numbers that
change together (`visionzip`), or several tiles change together. "from": the smallest value, which is above the budget;
"to": the largest, which is below it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--layers", type=int, help="decoder layers of a named shape")
    parser.add_argument("--hidden", type=int, help="hidden size of a named shape")
    parser.add_argument(
        "--method", action="append", default=[], help="notation, in place of the defaults of that method"
    )
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    options.out = options.folder / f"{options.model.replace('/', '--')}.json"

    wanted = Wanted(options.model, options.layers, options.hidden, new_tokens=options.new_tokens)
    subject = make_subject(wanted)
    given = {notation.partition(":")[0]: notation for notation in options.method}
    methods = [given.get(info.name, info.name) for info in list_methods()] + list(COMPOSED)
    rows = [
        row(subject, method, kind, asked, options.new_tokens)
        for method in track(methods, "methods", console=Console(stderr=True))
        for kind, asked in BUDGETS
    ]
    record(options, subject=subject.settings, rows=[asdict(each) for each in rows])
    title = f"{options.model}: {subject.visual_tokens} visual tokens, {subject.text_tokens} others"
    shown = table(title, rows)
    Console().print(shown)
    given_options = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "studies.budgets.measure", *map(portable, given_options)])
    settings = f"`{command}`, commit {stamp()['commit']}"
    options.out.with_suffix(".md").write_text(f"{shown.markdown()}\n{NOTE}\n{reasons(rows)}\n\n{settings}\n")


def table(title: str, rows: Sequence[Row]) -> Table:
    """One line per method, one column per budget."""
    methods = list(dict.fromkeys(each.method for each in rows if each.refused is None or _range(each)))
    found = {(each.method, each.kind, each.asked): each for each in rows}
    lines = [(method, *(_cell(found[(method, *budget)]) for budget in BUDGETS)) for method in methods]
    far = {
        (i, j)
        for i, method in enumerate(methods)
        for j, budget in enumerate(BUDGETS, 1)
        if (found[(method, *budget)].missing or 0) >= 1
    }
    return Table(title, ("method", *(f"{kind} {share:g}" for kind, share in BUDGETS)), lines, frozenset(far))


def _cell(each: Row) -> str:
    if each.reached is None:
        return _range(each) or "refused"
    return f"{each.reached:.4f} ({each.missing:.2f})"


def _range(each: Row) -> str:
    """The end of the range that the budget is beyond."""
    _, marker, ends = (each.refused or "").partition("it reaches from ")
    if not marker:
        return ""
    least, _, most = ends.partition(" with ")[0].partition(" to ")
    return f"from {least}" if float(least) > each.asked else f"to {most}"


def reasons(rows: Sequence[Row]) -> str:
    """Why methods have no value, other than the range."""
    said: dict[str, list[str]] = {}
    for each in rows:
        if each.refused is not None and not _range(each):
            said.setdefault(f"`{each.method}`: {each.refused}", []).append(f"{each.kind} {each.asked:g}")
    every = len(BUDGETS)
    return "\n".join(
        f"* {reason}" + (f" ({', '.join(budgets)})" if len(budgets) < every else "") for reason, budgets in said.items()
    )


if __name__ == "__main__":
    main()
