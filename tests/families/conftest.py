"""Tells the results of the family matrix which cell a test is, and leaves some cells to the slow run."""

import pytest

from tests.families.depth import sort_cell


def pytest_collection_modifyitems(items):
    for item in items:
        cell = item.get_closest_marker("cell")
        if cell is not None:
            sort_cell(item, cell)


@pytest.fixture(autouse=True)
def _cell(request, record_property):
    marker = request.node.get_closest_marker("cell")
    if marker is None:
        return
    params = request.node.callspec.params
    named = {key: params[key] for key in ("attention", "batch", "method", "case") if key in params}
    record_property("cell", {"family": params["name"], **marker.kwargs, **named})
