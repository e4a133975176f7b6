"""Tells the results of the family matrix which cell a test is, and leaves some cells to the slow run."""

import pytest

from tests.families.depth import in_every_run


def pytest_collection_modifyitems(items):
    """Mark as slow what not every run needs of the matrix; `make support` runs all of it."""
    for item in items:
        marker = item.get_closest_marker("cell")
        if marker is None:
            continue
        params = item.callspec.params
        place = (params["name"], marker.kwargs.get("stage"), params.get("case"), params.get("batch"))
        if not in_every_run(*place):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _cell(request, record_property):
    marker = request.node.get_closest_marker("cell")
    if marker is None:
        return
    params = request.node.callspec.params
    named = {key: params[key] for key in ("attention", "batch", "method", "case") if key in params}
    record_property("cell", {"family": params["name"], **marker.kwargs, **named})
