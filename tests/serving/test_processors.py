"""Batches of prompts that were made one by one equal those of the processor, for every real processor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processors.torchvision_copy import environment, missing


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_every_processor():
    command = [sys.executable, "-m", "tests.serving.every_processor"]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment(True), cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert len(found) > 30
    assert all(found.values()), found
