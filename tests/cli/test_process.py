"""The installed command in its own process, with a real terminal, pipes and signals."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
COMMAND = [sys.executable, "-c", "from vistrim.cli import main; main()"]
LIMIT = 120


def test_a_failure_is_one_line_on_standard_error(image):
    command = [*COMMAND, "run", image, "-p", "what", "--model", "no-such-group/no-such-model"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT)
    assert result.returncode == 1
    assert result.stdout == ""
    searched, failed = result.stderr.splitlines()
    assert searched.startswith("looking for no-such-group/no-such-model on the Hugging Face Hub")
    assert failed.startswith("error: ")
    assert "no-such-group/no-such-model is not on this machine" in result.stderr


def test_a_reader_that_goes_away_is_no_error_of_ours(image, checkpoint):
    command = [*COMMAND, "run", image, "--model", checkpoint, "--json", "--max-new-tokens", "2"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write(b"what\n" * 200)
    process.stdin.close()
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(LIMIT) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "methods"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT
        )
    assert result.returncode == 1
    assert result.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_the_answer_streams_and_an_interrupt_ends_it_quietly(image, checkpoint):
    primary, terminal = pty.openpty()
    command = [*COMMAND, "run", image, "-p", "what", "--model", checkpoint, "--max-new-tokens", "480"]
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        # Where the tests run in the background, a shell has them ignore interrupts, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(terminal)
    shown = _read_until(primary, lambda text: text.count(" w") >= 3)
    assert "vistrim report" not in shown
    process.send_signal(signal.SIGINT)
    shown += _read_until(primary, lambda _: False)
    os.close(primary)
    assert process.wait(LIMIT) == 130
    assert "loading" in shown
    assert "Traceback" not in shown


def _read_until(terminal: int, done) -> str:
    text, began = "", time.monotonic()
    while not done(text) and time.monotonic() - began < LIMIT:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            read = os.read(terminal, 1024)
        # Linux reports the other end's closing as an error.
        except OSError:
            break
        if not read:
            break
        text += read.decode(errors="replace")
    return text
