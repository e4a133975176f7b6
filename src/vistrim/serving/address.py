"""The address and port that a server listens on."""

import socket

from vistrim.errors import VistrimError


class AddressError(VistrimError):
    """An address or port cannot be listened on."""


def free_port(host: str, port: int) -> int:
    """Find out whether a server can listen, before it takes the time to load its model.

    Parameters
    ----------
    host : str
        Address to listen on.
    port : int
        Port. 0: any free one.

    Returns
    -------
    int
        The port, or one that is free now.

    Raises
    ------
    AddressError
        If the port is in use, or the address or port cannot be used by this process.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: connections that ended a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise AddressError(f"cannot listen on {host}:{port} ({reason}): use another port or address") from error
        return int(probe.getsockname()[1])
