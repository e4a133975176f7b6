"""A page for each registered method, from its class, its docstring and the committed results."""

import re
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from docs.site.pages import ROOT
from studies.common_table.report import read
from studies.common_table.rows import Row
from vistrim import Method, get_method, list_methods
from vistrim.methods.base.method import Method as Base
from vistrim.methods.base.parameter_text import write_value
from vistrim.methods.base.registry import MethodInfo, find_method

RESULTS = ROOT / "studies" / "common_table" / "results"
STAGES = {
    "input": "before the decoder",
    "structure": "inside the layers",
    "prefill": "in prefill",
    "decode": "while decoding",
}
DIRECTIVE = """\
::: {path}
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: {members}
"""
HOW_MEASURED = (
    "From [all methods at equal visual tokens](../common-table.md), which has the questions, the other methods and the "
    "meaning of the figures. Accuracy in %; FLOPs and KV cache are those of the decoder, as a share of the untouched "
    "model's. These models know drawn shapes only: the figures show how the method works, not how it ranks on large "
    "models."
)


def names() -> list[str]:
    """Names of all methods."""
    return [info.name for info in list_methods()]


def pages() -> dict[str, str]:
    """Pages by their paths: one for each method, the table of all, and the guide with links to them."""
    results = {folder.name: read(folder) for folder in sorted(RESULTS.iterdir()) if (folder / "results.json").exists()}
    found = {f"docs/methods/{info.name}.md": "\n".join(_page(info, results)) for info in list_methods()}
    guide = "docs/guides/methods.md"
    found[guide] = linked((ROOT / guide).read_text(encoding="utf-8"))
    return {"docs/methods/index.md": "\n".join(_index()), **found}


def linked(guide: str) -> str:
    """Link the methods in the first table of a guide to their pages, which exist on the site only."""
    known = "|".join(names())
    before, heading, after = guide.partition("## What usually matters")
    return re.sub(rf"`({known})`", r"[`\1`](../methods/\1.md)", before) + heading + after


def _index() -> Iterator[str]:
    yield "# Methods\n\nThe registry of this version. [Choose a method](../guides/methods.md) helps to choose one.\n"
    yield "| method | acts | what it does | source |\n|---|---|---|---|"
    for info in list_methods():
        yield f"| [`{info.name}`]({info.name}.md) | {_stages(info)} | {info.summary} | {_source(info)} |"


def _page(info: MethodInfo, results: dict[str, Any]) -> Iterator[str]:
    method, cls = get_method(info.name), find_method(info.name)
    yield f"# `{info.name}`\n\n{info.summary}.\n"
    if cls.caution:
        yield f"!!! warning\n    {cls.caution}\n"
    parameter = method.budget_parameter
    facts = {
        "acts": _stages(info),
        "needs": info.needs,
        "KV cache of visual tokens": info.kv_cache,
        "own cost": "; ".join(_costs(method)) or "none to speak of",
        "[budget](../guides/budgets.md)": f"sets `{parameter}`" if parameter else f"none: {cls.unbudgeted}",
        "source": _source(info),
    }
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {fact} |" for name, fact in facts.items())
    yield f'\n```console\n$ vistrim run photo.jpg -p "What is this?" --method {info.name}\n```\n'
    defaults = ",".join(f"{name}={write_value(value)}" for name, value in info.parameters.items())
    if defaults:
        yield f"With all parameters at their defaults: `{info.name}:{defaults}`.\n"
    presets = hasattr(cls, "preset")
    yield f"## Formula, parameters{', presets' if presets else ''} and deviations\n"
    yield DIRECTIVE.format(path=f"{cls.__module__}.{cls.__qualname__}", members="[preset]" if presets else "false")
    yield f"## Evidence\n\n{HOW_MEASURED}\n"
    for model, content in results.items():
        yield from _evidence(info.name, model, content)


def _stages(info: MethodInfo) -> str:
    return ", ".join(STAGES[stage] for stage in info.stages)


def _source(info: MethodInfo) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", info.source)


def _costs(method: Method) -> Iterator[str]:
    """Work that a method adds, by what it asks the engine for."""
    if method.ranks_by == "guide":
        yield "a guide model answers first"
    if method.reads_question:
        yield "the decoder reads the question once more, without the image"
    if method.shrinks_images:
        yield "images are resized; the vision tower has less to do"
    if method.reads_vision:
        yield "data of the vision tower are read while images are encoded"
    if "prefill" in method.stages and method.ranks_by == "layer ahead":
        yield "keys of the layers of the cuts are computed before the cut, and reused by the layer"
    if "prefill" in method.stages and method.ranks_by == "layer before":
        yield "a few softmax rows per head at each cut"
    if "decode" in method.stages:
        yield "each eviction moves as many keys and values of a layer as it removes"
    if type(method).own_flops is not Base.own_flops:
        yield "networks of its own, counted in the FLOPs"


def _evidence(name: str, model: str, content: dict[str, Any]) -> Iterator[str]:
    rows, figures = [Row(**row) for row in content["rows"]], content["figures"]
    own = [row for row in rows if row.label.split(":")[0] == name]
    own.sort(key=lambda row: (row.label, -(row.asked or 0)))
    groups = list(figures["untouched"]["groups"])
    yield f"### `{model}`, {content['questions']} questions per task\n"
    columns = ("setting", "budget", *groups, "to `random` [95 %]", "to `uniform` [95 %]", "tokens", "FLOPs", "KV mean")
    ran = [row for row in own if row.name in figures]
    if ran:
        yield f"| {' | '.join(columns)} |\n|{'---|' * 2}{'---:|' * (len(columns) - 2)}"
        yield _line("untouched", "", figures["untouched"])
        for row in ran:
            yield _line(f"`{row.label}`", f"{100 * row.asked:g} %" if row.asked else "", figures[row.name])
        yield ""
    for row in own:
        if row.name not in figures:
            at = f" at {100 * row.asked:g} %" if row.asked else ""
            yield f"* `{row.label}`{at}: {row.reason or 'not run yet'}"
    if not own:
        yield "Not measured yet."
    yield ""


def _line(label: str, budget: str, found: dict[str, Any]) -> str:
    groups = found["groups"].values()
    cells = [label, budget, *(f"{100 * group['accuracy']:.1f}" for group in groups)]
    for other in ("random", "uniform"):
        against = [100 * value for value in found.get("against", {}).get(other, ())]
        cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*against) if against else "")
    cells.append(f"{fmean(group['average_tokens'] for group in groups):.1f}")
    cells += [f"{100 * fmean(group[name] for group in groups):.1f} %" for name in ("flops_share", "kv_mean")]
    return f"| {' | '.join(cells)} |"
