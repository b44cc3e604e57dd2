"""What a search leaves: a document of all that it tried, and a suite of the settings it found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from harness.config import plain
from harness.manifest import git_revision
from harness.search_file import Search
from harness.store import Store
from harness.study import Study

SCHEMA: Final = 1

_HEADER: Final = """\
# Settings that the search {name} chose by {metric} on validation images, {file}.
# Grids come in pairs: the seeds of the search, which must give the selected values once more, and
# fresh seeds with test accuracy. Run it with
#   python run_benchmark.py run {path}
"""


def write_document(search: Search, studies: Sequence[Study], store: Store) -> None:
    """Write `searches/<name>.json`, from which reports are made."""
    document = {
        "schema": SCHEMA,
        "search": search.name,
        "file": str(search.path),
        "suite": search.suite,
        "studies": [_study(study) for study in studies],
    }
    store.write_search(search.name, document)


def write_suite(search: Search, studies: Sequence[Study], store: Store) -> Path | None:
    """Write the suite of the best settings into the store's folder.

    Returns:
        Its file; None if no study has a configuration that ran to its end.
    """
    grids: list[dict[str, Any]] = []
    selected: list[dict[str, Any]] = []
    for study in studies:
        best = study.best()
        if best is None:
            continue
        plan = study.plan
        grids += [plan.validation_grid(best.configuration), plan.test_grid(best.configuration)]
        selected.append(
            {
                "study": plan.name,
                "value": best.value,
                "number": best.number,
                "of": len(study.tried()),
                "settings": best.configuration,
                "trial_ids": list(best.trial_ids),
            }
        )
    if not grids:
        return None
    options = search.options
    origin = {
        "name": search.name,
        "file": str(search.path),
        "metric": options.metric,
        "algorithm": options.algorithm,
        "scheduler": options.scheduler,
        "search_seed": options.search_seed,
        "first_tasks": options.first_tasks,
        "git": git_revision(),
        "selected": selected,
    }
    root = {} if search.data_root is None else {"data_root": search.data_root}
    path = store.root / f"{search.suite}.yaml"
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda _: True  # everything written out, for readers
    yaml.width = 100
    yaml.dump({"name": search.suite, **root, "search": origin, "grids": grids}, text)
    head = _HEADER.format(name=search.name, metric=options.metric, file=search.path, path=path)
    store.write_text(path, head + text.getvalue())
    return path


def _study(study: Study) -> dict[str, Any]:
    plan, best = study.plan, study.best()
    trainings, hours = study.spent()
    return {
        "name": plan.name,
        "method": plan.method.name,
        "label": plan.method.label,
        "cell": plan.cell,
        "protocol": plan.scene["protocol"],
        "tasks": plan.tasks,
        "options": plain(plan.options),
        "rungs": study.rungs(),
        "space": {name: plain(one) for name, one in plan.space.items()},
        "default": plan.default,
        "configurations": plan.configurations,
        "tried": [asdict(one) for one in study.tried()],
        "best": None if best is None else best.number,
        "trainings": trainings,
        "hours": hours,
    }
