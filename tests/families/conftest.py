"""Tells the results of the family matrix which cell a test is: `tests.families.support` writes them down."""

import pytest


@pytest.fixture(autouse=True)
def _cell(request, record_property):
    marker = request.node.get_closest_marker("cell")
    if marker is None:
        return
    params = request.node.callspec.params
    named = {key: params[key] for key in ("attention", "batch", "method", "case") if key in params}
    record_property("cell", {"family": params["name"], **marker.kwargs, **named})
