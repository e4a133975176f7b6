"""What cannot be trimmed is refused, with a reason."""

import pytest

import vistrim
from tests.families.refused import REFUSED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_class_is_refused(name):
    model = REFUSED[name].build()
    with pytest.raises(vistrim.UnsupportedModelError):
        vistrim.trim(model, vistrim.FastV())
