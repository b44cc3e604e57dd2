"""What there is of each data set on this machine, and how it differs from what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from harness import plugins
from harness.data.base import DataError, Dataset
from harness.data.official import Official
from harness.data.prepared import (
    FOLDER,
    MANIFEST,
    Manifest,
    Request,
    checksum,
    damaged,
    intact,
)
from harness.data.shelf import read, request

_CHUNK: Final = 1 << 20  # bytes of a file read at once


def overview(root: Path) -> Table:
    """Every data set: its classes, what is here of it, how large that is, and where from."""
    table = Table(title=f"data sets; root folder {root}", title_justify="left")
    for column in ("name", "classes", "here", "GB", "where from"):
        table.add_column(column, overflow="fold", justify="right" if column == "GB" else "left")
    for name in plugins.names("data set"):
        entry = plugins.find("data set", name, where="data list")
        config = entry.config()
        classes = str(entry.module.num_classes(config))
        if hasattr(entry.module, "load"):
            table.add_row(name, classes, "comes with the project", "", entry.module.SOURCE)
            continue
        rows = [*_source(request(name, config, root)), *_prepared(name, root)]
        for number, (here, size, origin) in enumerate(rows):
            head = (name, classes) if number == 0 else ("", "")
            table.add_row(*head, here, size, origin or entry.module.SOURCE)
    return table


def _source(wanted: Request) -> Iterator[tuple[str, str, str]]:
    """The files as they are published, if they are here; their size would take long to add up."""
    try:
        yield "its files", "", str(wanted.find())
    except DataError:
        if not list(_folders(wanted.name, wanted.root)):
            yield "-", "", ""


def _prepared(name: str, root: Path) -> Iterator[tuple[str, str, str]]:
    """What is prepared of a set, whole or not."""
    for folder in _folders(name, root):
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
        manifest = intact(folder)
        here = "half prepared" if folder.suffix == ".part" else "damaged or old"
        if manifest is not None and folder.suffix != ".part":
            here = f"prepared: {_counts(manifest)}"
        yield here, f"{size:.2f}", str(folder)


def _folders(name: str, root: Path) -> list[Path]:
    found = (root / FOLDER).glob(f"{name}-*")
    return sorted(path for path in found if path.is_dir() and ".old-" not in path.name)


def _counts(manifest: Manifest) -> str:
    """The numbers of images, and their sides."""
    numbers = " + ".join(f"{split.shape[0]:,}" for split in manifest.splits.values())
    sides = next(iter(manifest.splits.values())).shape[2:]
    return f"{numbers} of {sides[0]}x{sides[1]}"


def summary(dataset: Dataset) -> str:
    """What is in a data set, in a line."""
    shape = "x".join(str(side) for side in dataset.test.x.shape[1:])
    domain = dataset.test.domain
    domains = "" if domain is None else f" in {len(domain.unique())} domains"
    return (
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{shape}, {dataset.num_classes} classes{domains}"
    )


def check(name: str, config: Any, root: Path) -> Iterator[str]:  # noqa: ANN401 - a set's Config
    """Lines that say what is here and how it differs from what was published.

    Nothing is prepared by that; what is prepared is read as a whole and compared with its sums.

    Raises:
        DataError: if the set is not here, or what is prepared is damaged.
    """
    module = plugins.find("data set", name, where="data check").module
    if hasattr(module, "load"):
        yield f"{summary(read(name, config, root))}: ok"
        return
    wanted = request(name, config, root)
    official: Official = module.official(config)
    found = _found(wanted)
    source = found.source
    yield from found.lines
    differences = list(_differences(found, official))
    yield from differences
    if source is not None:
        yield from _files(source, official.md5)
    numbers = ", ".join(f"{sum(counts):,} {split}" for split, counts in found.counts.items())
    verdict = "numbers as published" if not differences else "a reduced or another copy"
    if official.train is None and official.test is None:
        verdict = "how many there should be is not known"
    yield f"{name}: {numbers} images in {len(found.class_names)} classes: ok, {verdict}"


@dataclass(frozen=True, slots=True)
class _Found:
    """What is here of a data set: images of each class by split, and lines about it."""

    source: Path | None
    class_names: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    lines: Sequence[str]


def _found(wanted: Request) -> _Found:
    manifest = intact(wanted.folder)
    try:
        source = wanted.find()
    except DataError:
        if manifest is None:
            raise
        lines = [f"its files are not here; they were in {manifest.source}"]
        return _of_manifest(wanted, manifest, None, lines)
    contents = wanted.scan(source)
    if manifest is not None and manifest.checksum == checksum(contents):
        return _of_manifest(wanted, manifest, source, [f"its files: {source}"])
    state = "not prepared yet" if manifest is None else "prepared from other files"
    lines = [f"its files: {source}", f"{state}: run `data prepare {wanted.name}`"]
    names = contents.class_names
    counts = {
        split: of.labels.bincount(minlength=len(names)).tolist()
        for split, of in contents.splits().items()
    }
    return _Found(source, names, counts, lines)


def _of_manifest(
    wanted: Request, manifest: Manifest, source: Path | None, lines: list[str]
) -> _Found:
    broken = damaged(wanted.folder, manifest)
    if broken:
        raise DataError(
            f"{broken[0]}: damaged: its sums are not those of {MANIFEST}; delete {wanted.folder} "
            f"and run `data prepare {wanted.name}`"
        )
    lines.append(f"prepared: {wanted.folder}: {_counts(manifest)}, all sums right")
    skipped = manifest.skipped
    if skipped:
        lines.append(f"left out, as they could not be decoded: {len(skipped)}")
        lines += [f"  {path}: {why}" for path, why in skipped.items()]
    counts = {name: split.per_class for name, split in manifest.splits.items()}
    return _Found(source, manifest.class_names, counts, lines)


def _differences(found: _Found, official: Official) -> Iterator[str]:
    """A line for each split that has other numbers of images than were published."""
    for split, counts in found.counts.items():
        published = official.train if split == "train" else official.test
        if published is None:
            continue
        wanted = [published] * len(counts) if isinstance(published, int) else list(published)
        if len(wanted) != len(counts):
            yield f"{split}: {len(counts)} classes; published: {len(wanted)}"
            continue
        other = [label for label, count in enumerate(counts) if count != wanted[label]]
        if other:
            label = other[0]
            yield (
                f"{split}: {sum(counts):,} images; published: {sum(wanted):,}; {len(other)} "
                f"classes differ, such as {found.class_names[label]!r}: {counts[label]:,} of "
                f"{wanted[label]:,}"
            )


def _files(source: Path, md5: Mapping[str, str]) -> Iterator[str]:
    """A line for each published file: its sum, and whether the one in this place has it."""
    for name, published in md5.items():
        places = (source / name, source.parent / name)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            yield f"{name}: not here; MD5 published: {published}"
            continue
        found = _md5(path)
        same = "as published" if found == published else f"but {published} is published"
        yield f"{name}: MD5 {found}, {same}"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
