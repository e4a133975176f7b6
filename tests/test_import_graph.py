"""Arrows point down: who imports whom, read off the source, against the floors of the house."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {"vistrim": ROOT / "src", "training": ROOT, "studies": ROOT}

FLOORS = (
    ("vistrim.errors", "vistrim._version"),
    ("vistrim._utils",),
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
    ("vistrim.trimming", "vistrim.prompting", "vistrim.processor_packages", "vistrim.reference_lm"),
    ("vistrim.shipped",),
    ("vistrim.loading",),
    ("vistrim.support",),
    ("vistrim",),
    ("vistrim.benchmark.peak",),
    ("vistrim.benchmark.paired",),
    ("vistrim.evaluation", "vistrim.benchmark", "vistrim.analysis"),
    ("vistrim.analysis.attention",),
    ("vistrim.calibration", "vistrim.checking"),
    ("vistrim.reference",),
    ("vistrim.cli",),
    ("training", "studies"),
)
"""Rooms from the ground up: modules, and packages with all in them that has no room of its own. A module may import
from its own room and from lower floors."""

ON_DEMAND = ("vistrim.engine.structured", "vistrim.engine.guide")
"""Imported inside of functions only, when a method asks for them."""

FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


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
    """Modules of ours that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in modules()]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        # `from package import name`, where the name is a module of it or stands in it.
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


def room_of(module: str) -> str:
    """The innermost room that a module is in."""
    if module in FLOOR_OF:
        return module
    parent = module.rpartition(".")[0]
    assert parent not in ("", "vistrim"), f"{module} has no room: give it one in FLOORS"
    return room_of(parent)


def test_every_module_has_a_room():
    for module in modules():
        room_of(module)


def test_arrows_point_down():
    upward = [
        f"{module} -> {other}"
        for module, others in graph().items()
        for other in others
        if room_of(module) != room_of(other) and FLOOR_OF[room_of(module)] <= FLOOR_OF[room_of(other)]
    ]
    assert not upward


def test_no_circles():
    left = {module: set(others) for module, others in graph().items()}
    while ground := {module for module, others in left.items() if not others}:
        left = {module: others - ground for module, others in left.items() if module not in ground}
    assert not left, "these import each other in circles, or import those that do"


def test_the_engine_alone_takes_models_apart():
    users = {
        module for module, others in graph().items() for other in others if other.startswith("vistrim.architectures")
    }
    assert {user.split(".")[1] for user in users} == {"architectures", "engine", "support"}


def test_rare_machines_are_imported_when_a_method_asks():
    eager = [
        f"{module} -> {other}"
        for module, path in modules().items()
        for node in ast.parse(path.read_text()).body
        for other in imported(node)
        if (room := room_of(other)) in ON_DEMAND and room_of(module) != room
    ]
    assert not eager
