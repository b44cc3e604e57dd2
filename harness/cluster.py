"""What has to happen before Ray is imported: its switches, and a look at a cluster's address."""

from __future__ import annotations

import os
import socket
from typing import Final

from harness.errors import UserError

CONNECT_SECONDS: Final = 5.0

_SETTINGS: Final = b"\x04"  # the type of an HTTP/2 frame, which follows three bytes of length
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5

# Ray reads these when it is imported and when its processes start.
ENVIRONMENT: Final = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # hide the GPUs from trials that ask for none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the run at once; nothing is lost by it
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # a stuck worker is ended after a minute, not ten
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune prints nothing of its own
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
}


def prepare() -> None:
    """Set the switches that the user has not set; call it before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_address(address: str) -> None:
    """Try a plain connection to a Ray address, `host:port` or `ray://host:port`.

    Ray's servers speak gRPC, which is HTTP/2: they greet with a frame of settings. Ray itself would
    try a wrong port for ten minutes.

    Raises:
        UserError: if nothing answers within 5 seconds, or something that is not Ray.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UserError(f"--address {address}: expected HOST:PORT, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as link:
            link.sendall(_HELLO)
            greeting = link.recv(4)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: no answer ({error}); is the head node up and the port right?"
        ) from None
    if greeting[3:] != _SETTINGS and not os.environ.get("RAY_USE_TLS"):
        raise UserError(f"--address {address}: this is not Ray; its default port is 6379")
