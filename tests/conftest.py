"""What all tests have in common."""

import gc

import pytest

from tests.covering import leave_others_to_the_slow_run


def pytest_collection_modifyitems(items):
    leave_others_to_the_slow_run(items)


def pytest_collection_finish():
    """Have the garbage collector pass over modules and tests, which outlive every test."""
    gc.freeze()


@pytest.fixture(autouse=True)
def small_caches_grow_as_large_ones_do(monkeypatch):
    """Caches of tiny models are below the size from which room is kept in them; a large model's are not."""
    # Not at the top: the process that hands out tests to pytest-xdist's workers runs none, and starts at once.
    from vistrim.engine.cache import spare_room

    monkeypatch.setattr(spare_room, "WORTH_ROOM", 0)
