"""`vistrim check` on a tiny checkpoint with its real processor.

``python -m tests.checking.real_processors FAMILY FOLDER`` is a process of its own: see ``tests.processors.walk``.
"""

import sys
from pathlib import Path

from tests.processors.torchvision_copy import declare_operators

OPERATORS = declare_operators()

from tests.processors.place import Place  # noqa: E402
from vistrim.cli.app import app  # noqa: E402

if __name__ == "__main__":
    place = Place(sys.argv[1], Path(sys.argv[2]))
    app(["check", place.model_path, "--image", place.picture("wide"), "--json"], prog_name="vistrim")
