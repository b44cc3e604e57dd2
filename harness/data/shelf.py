"""The data sets of this machine: what there is, whether it is whole, how to get it."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from harness import plugins
from harness.data.base import DataError, Dataset
from harness.data.registry import load
from harness.errors import UserError


def overview(root: Path) -> Table:
    """Every data set with its number of classes and where it comes from."""
    table = Table(title=f"data sets; root folder {root}", title_justify="left")
    for column in ("name", "classes", "source"):
        table.add_column(column)
    for name in plugins.names("data set"):
        entry = plugins.find("data set", name, where="data list")
        classes = entry.module.num_classes(entry.config())
        table.add_row(name, str(classes), entry.module.SOURCE)
    return table


def prepare(name: str, root: Path, *, download: bool) -> None:
    """Make a data set ready: generate it, or with `download` fetch it.

    Raises:
        UserError: if that cannot be done, with what can.
    """
    entry = plugins.find("data set", name, where="data prepare")
    if download:
        fetch = getattr(entry.module, "download", None)
        if fetch is None:
            raise UserError(f"data prepare {name}: nothing to download; {entry.module.SOURCE}")
        fetch(root)
    _load(name, root)


def check(name: str, root: Path) -> str:
    """Load a data set with its default settings and say what is in it.

    Raises:
        UserError: if it is not there or damaged.
    """
    dataset = _load(name, root)
    shape = "x".join(str(side) for side in dataset.image_shape)
    return (
        f"{name}: {len(dataset.train)} training and {len(dataset.test)} test images of {shape}, "
        f"{dataset.num_classes} classes: ok"
    )


def _load(name: str, root: Path) -> Dataset:
    entry = plugins.find("data set", name, where="data")
    try:
        return load(name, entry.config(), root)
    except DataError as error:
        raise UserError(str(error)) from None
