"""The import graph, read from the source, has no cycles and follows the order of the packages."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {"vistrim": ROOT / "src", "training": ROOT, "studies": ROOT}

LEVELS = (
    ("vistrim.errors", "vistrim._version"),
    ("vistrim._utils",),
    ("vistrim.processor_packages", "vistrim.reference_lm"),
    ("vistrim.tuned_model",),
    ("vistrim.shipped",),
    ("vistrim.loading",),
    ("vistrim.core",),
    ("vistrim.methods.base", "vistrim.architectures"),
    ("vistrim.methods",),
    ("vistrim.engine.releases",),
    ("vistrim.engine.hooks", "vistrim.engine.tokens"),
    ("vistrim.engine.attention", "vistrim.engine.cache"),
    ("vistrim.engine.inputs",),
    ("vistrim.engine.report",),
    ("vistrim.engine.passes",),
    ("vistrim.engine.structured",),
    ("vistrim.engine",),
    ("vistrim.engine.guide",),
    ("vistrim.trimming", "vistrim.prompting", "vistrim.prompt_sizes"),
    ("vistrim.budgeting",),
    ("vistrim.support", "vistrim.prompt_budgets"),
    ("vistrim.benchmark.peak", "vistrim.benchmark.marks"),
    ("vistrim.benchmark.paired",),
    ("vistrim.evaluation", "vistrim.benchmark", "vistrim.analysis"),
    ("vistrim.analysis.attention",),
    ("vistrim.calibration", "vistrim.checking", "vistrim.batching", "vistrim.leaderboard", "vistrim.serving"),
    ("vistrim",),
    ("vistrim.reference",),
    ("vistrim.integrations",),
    ("vistrim.cli",),
    ("vistrim.__main__",),
    ("training", "studies"),
)
"""Modules, and packages with all modules in them that have no entry of their own, from the lowest level up. A module
may import from its own entry and from lower levels."""

ON_DEMAND = ("vistrim.engine.structured", "vistrim.engine.guide")
"""Imported inside functions only, if a method needs them."""

LEVEL_OF = {entry: number for number, entries in enumerate(LEVELS) for entry in entries}


@cache
def modules() -> dict[str, Path]:
    """All modules by name."""
    found = {}
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(node: ast.AST) -> list[str]:
    """Modules of this project that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in modules()]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        # `from package import name`, where the name is a module or an attribute of it.
        names = (f"{node.module}.{alias.name}" for alias in node.names)
        return [name if name in modules() else node.module for name in names if node.module in modules()]
    return []


@cache
def graph() -> dict[str, set[str]]:
    """Modules that each module imports, wherever in it the import stands."""
    return {
        name: {found for node in ast.walk(ast.parse(path.read_text())) for found in imported(node)} - {name}
        for name, path in modules().items()
    }


def entry_of(module: str) -> str:
    """The innermost entry that a module belongs to."""
    if module in LEVEL_OF:
        return module
    parent = module.rpartition(".")[0]
    assert parent not in ("", "vistrim"), f"{module} has no level: give it one in LEVELS"
    return entry_of(parent)


def test_every_module_has_a_level():
    for module in modules():
        entry_of(module)


def test_imports_point_to_lower_levels():
    upward = [
        f"{module} -> {other}"
        for module, others in graph().items()
        for other in others
        if entry_of(module) != entry_of(other) and LEVEL_OF[entry_of(module)] <= LEVEL_OF[entry_of(other)]
    ]
    assert not upward


def test_no_cycles():
    left = {module: set(others) for module, others in graph().items()}
    while lowest := {module for module, others in left.items() if not others}:
        left = {module: others - lowest for module, others in left.items() if module not in lowest}
    assert not left, "these import each other in cycles, or import modules that do"


def test_only_the_engine_and_support_import_architectures():
    users = {
        module for module, others in graph().items() for other in others if other.startswith("vistrim.architectures")
    }
    assert {user.split(".")[1] for user in users} == {"architectures", "engine", "support"}


def test_optional_parts_are_imported_on_demand():
    eager = [
        f"{module} -> {other}"
        for module, path in modules().items()
        for node in ast.parse(path.read_text()).body
        for other in imported(node)
        if (entry := entry_of(other)) in ON_DEMAND and entry_of(module) != entry
    ]
    assert not eager
