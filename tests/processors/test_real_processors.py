"""Every family through its real processor: the command line, and the trimmed outputs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processors.baseline import BASELINE, REFUSED, excused
from tests.processors.torchvision_copy import environment, missing
from tests.processors.zoo import CHECKPOINTS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Walker:
    """A process that goes through families one by one."""

    def __init__(self, with_torchvision: bool, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.processors.walk"],
            cwd=ROOT,
            env=environment(with_torchvision),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )

    def walk(self, family: str, folder: Path) -> dict[str, str]:
        """How each step ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"family": family, "folder": str(folder)}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()[-2000:]
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@pytest.fixture(scope="module")
def walkers(tmp_path_factory):
    """A walker that finds torchvision, and one that finds it where it is installed only."""
    started = {}

    def walker(with_torchvision: bool) -> Walker:
        if with_torchvision not in started:
            log = tmp_path_factory.mktemp("walk") / "stderr"
            started[with_torchvision] = Walker(with_torchvision, log)
        return started[with_torchvision]

    yield walker
    for running in started.values():
        running.close()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_step(name, walkers, tmp_path, record_property):
    needed = CHECKPOINTS[name].needs_torchvision
    if needed and (reason := missing()):
        pytest.skip(reason)
    outcomes = walkers(needed).walk(name, tmp_path)
    record_property("processor", {"family": name, "outcomes": outcomes})
    expected = excused(name)
    wrong = {step: told for step, told in outcomes.items() if told and expected.get(step, told + "?") not in told}
    assert not wrong
    assert not [step for step in expected if not outcomes[step]], "this can be done now: take it off the list"


def test_listed_exceptions_exist():
    assert BASELINE.keys() | REFUSED.keys() <= CHECKPOINTS.keys()
