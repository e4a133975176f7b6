"""How many calls of a trimmed model are running: what is on the model comes off when the last of them has ended."""

import threading
from collections.abc import Callable


class RunningCalls:
    """Calls that are running, in any thread.

    Parameters
    ----------
    clear : callable
        Called once no call is running and none will be admitted.
    """

    def __init__(self, clear: Callable[[], None]) -> None:
        self._clear = clear
        # Of the kind that a signal handler may take again, which detaches in the middle of a call.
        self._lock = threading.RLock()
        self._open = False
        self._running = 0

    def open(self) -> None:
        """Admit calls from now on."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """Admit no further calls."""
        with self._lock:
            self._open = False
            self._clear_if_over()

    def admit(self) -> bool:
        """Whether a call that begins is to be trimmed; then it has to `leave`."""
        with self._lock:
            self._running += self._open
            return self._open

    def leave(self) -> None:
        """Note the end of a call that was admitted."""
        with self._lock:
            self._running -= 1
            self._clear_if_over()

    def _clear_if_over(self) -> None:
        if not self._open and not self._running:
            self._clear()
