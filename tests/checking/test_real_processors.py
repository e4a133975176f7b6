"""`vistrim check` on checkpoints as users have them: a tiny model with its family's own processor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processors.torchvision_copy import environment, missing
from tests.processors.zoo import CHECKPOINTS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_every_check_passes(family, tmp_path):
    needed = CHECKPOINTS[family].needs_torchvision
    if needed and (reason := missing()):
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.checking.real_processors", family, str(tmp_path)],
        cwd=ROOT,
        env=environment(needed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = {outcome["name"]: outcome["status"] for outcome in json.loads(done.stdout)["outcomes"]}
    assert found.pop("speed") == "measured"
    assert set(found.values()) == {"passed"}, done.stdout
