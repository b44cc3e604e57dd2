"""What a data set is officially, to compare with what is on this disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Official:
    """The published data set, with the settings that are asked for.

    Attributes:
        licence: under which terms, in a few words.
        size: of what is fetched and of what is prepared from it, in words.
        train, test: images of each class, in the order of the labels; one number if all classes
            have as many; None if it depends on more than the settings.
        md5: by file name, of the archives and files as published; those that lie in the folder of
            the data set, or beside it, are compared.
    """

    licence: str
    size: str
    train: int | Sequence[int] | None
    test: int | Sequence[int] | None
    md5: Mapping[str, str] = field(default_factory=dict[str, str])
