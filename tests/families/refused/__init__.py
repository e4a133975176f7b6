"""Every class of image-text models that cannot be trimmed, by the name of its model type."""

from tests.families.refused import encoders, indexed, loops, recurrent, shared
from tests.families.refused.case import Refused

__all__ = ["REFUSED", "Refused"]

REFUSED: dict[str, Refused] = encoders.CASES | loops.CASES | recurrent.CASES | indexed.CASES | shared.CASES
