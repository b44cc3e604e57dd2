"""Provenance: what a stored number was made with."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from harness.config import ROOT, plain
from harness.data.scenarios import Scenario
from harness.protocol import is_reference
from harness.schema import SCHEMA_VERSION
from harness.spec import Trial
from harness.suite import Suite

_PACKAGES = ("engram", "torch", "torchvision", "numpy", "ray", "scikit-learn", "pyarrow")


def now() -> str:
    """This moment in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def git_revision() -> dict[str, Any]:
    """Revision of the working tree, and whether it had changes; nulls outside a checkout."""
    try:
        revision = _git("rev-parse", "HEAD").strip()
        return {"revision": revision, "dirty": bool(_git("status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}


@cache
def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that numbers may depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["cuda"] = torch.version.cuda if torch.cuda.is_available() else None
    return found


def manifest(
    trial: Trial,
    scenario: Scenario,
    *,
    device: torch.device,
    flags: Mapping[str, object],
    git: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON document stored beside a trial's numbers, without times and attempts."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "schema": SCHEMA_VERSION,
        **identity(trial),
        "primary": trial.primary,
        "reference": is_reference(trial.spec),
        "suite": trial.suite,
        "label": trial.label,
        "dataset_label": trial.dataset_label,
        "protocol_name": trial.protocol_name,
        "class_order": list(scenario.class_order),
        "class_names": list(scenario.dataset.class_names),
        "data": dict(scenario.dataset.origin),
        "flags": dict(flags),
        "device": gpu or f"{device.type} {platform.processor() or platform.machine()}",
        "host": socket.gethostname(),
        "git": dict(git),
        "versions": versions(),
        "resources": asdict(trial.resources),
    }


def identity(trial: Trial) -> dict[str, Any]:
    """What tells a trial from all others."""
    return {
        "trial_id": trial.trial_id,
        "group": trial.spec.group,
        "spec": trial.spec.to_json(),
    }


def suite_document(suite: Suite, trials: Sequence[Trial]) -> dict[str, Any]:
    """Which trials a suite wants and under which names, for `RESULTS/suites/<name>.json`."""
    wanted = [
        {
            "trial_id": trial.trial_id,
            "group": trial.spec.group,
            "method": trial.spec.method.name,
            "label": trial.label,
            "dataset": trial.dataset_label,
            "distribution": trial.spec.distribution,
            "num_tasks": trial.spec.tasks_learned,
            "protocol": trial.protocol_name,
            "seed": trial.spec.seed,
            "primary": trial.primary,
            "reference": is_reference(trial.spec),
            "settings": trial.spec.flat(),
        }
        for trial in trials
    ]
    return {
        "schema": SCHEMA_VERSION,
        "suite": suite.name,
        "written": now(),
        "grids": [plain(grid.keys) for grid in suite.grids],
        "overrides": dict(suite.overrides),
        "metrics": [list(names) for names in suite.metrics],
        "search": dict(suite.search),
        "trials": wanted,
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
