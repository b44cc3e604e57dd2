"""Ray's own switches. It reads them when it is imported and when its processes start."""

from __future__ import annotations

import os
from typing import Final

ENVIRONMENT: Final = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # hide the GPUs from trials that ask for none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the run at once; nothing is lost by it
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # a stuck worker is ended after a minute, not ten
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
}


def prepare() -> None:
    """Set the switches that the user has not set; call it before Ray is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
