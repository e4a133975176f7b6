"""What all tests have in common."""

import pytest

from vistrim.engine.cache import spare_room


@pytest.fixture(autouse=True)
def small_caches_grow_as_large_ones_do(monkeypatch):
    """Caches of tiny models are below the size from which room is kept in them; a large model's are not."""
    monkeypatch.setattr(spare_room, "WORTH_ROOM", 0)
