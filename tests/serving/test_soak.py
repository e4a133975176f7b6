"""A short soak test; `tests.serving.soak` has a long one."""

import pytest

from tests.serving.soak import soak


@pytest.mark.slow
def test_mixed_requests_at_the_same_time():
    assert not soak("reference-small", 120)["wrong"]
