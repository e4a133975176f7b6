"""Every class of image-text models that cannot be trimmed, by the name of its model type."""

from tests.families.refused import encoders, indexed, loops, recurrent, shared
from tests.families.refused.case import Refused
from tests.families.zoo import EVERY, FAMILIES

__all__ = ["REFUSED", "Refused"]

_FAULTY = {
    name: Refused(EVERY[name].config, "transformers itself cannot run it") for name in EVERY.keys() - FAMILIES.keys()
}

REFUSED: dict[str, Refused] = encoders.CASES | loops.CASES | recurrent.CASES | indexed.CASES | shared.CASES | _FAULTY
