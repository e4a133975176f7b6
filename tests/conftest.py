"""Settings for all tests."""

import gc

import pytest

from tests.covering import leave_others_to_the_slow_run


def pytest_collection():
    """Modules and tests outlive their collection: looking for garbage among them only takes time."""
    gc.disable()


def pytest_collection_modifyitems(items):
    leave_others_to_the_slow_run(items)


def pytest_collection_finish():
    """Have the garbage collector pass over modules and tests, which outlive every test."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def few_objects():
    """Timed runs collect garbage first, which is slow with all the objects of earlier tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def undrawn(monkeypatch):
    """Plots are files, but not drawn, which takes longer than all else on a tiny model."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr(figure, "savefig", lambda figure, path, **options: path.write_bytes(b""))


@pytest.fixture(autouse=True)
def small_caches_grow_as_large_ones_do(monkeypatch):
    """Caches of tiny models are below the size from which room is kept in them; a large model's are not."""
    # Not at the top: the process that hands out tests to pytest-xdist's workers runs none, and starts at once.
    from vistrim.engine.cache import spare_room

    monkeypatch.setattr(spare_room, "WORTH_ROOM", 0)
