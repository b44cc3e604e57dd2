"""One look for all figures: a fixed colour, marker and line a method, sizes for two-column papers.

Colours are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), which people with any
colour vision can tell apart; yellow is left out, being hard to see on white.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

COLUMN_INCHES: Final = 3.25
PAGE_INCHES: Final = 6.75
DPI: Final = 200

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
LINES: Final = ("-", "--", "-.", ":")

METHODS: Final = (
    *("climb", "cla_b", "cla_e", "cla_r", "cassle", "cassle_r", "scale", "osiris_r", "minred"),
    *("replay", "lump", "no_strategy", "iid"),
    *("finetune", "joint", "er", "si", "ewc_online", "lwf", "lwf_mc", "agem", "gem", "hal", "fdr"),
    *("pnn", "dualnet", "lucir", "rpc", "gss", "pec", "edd", "cls_er", "der_dark", "ewc"),
    *("exemplar_replay", "icarl", "der_expand", "braincl"),
)
"""Names with a reserved place in the cycle; a new method needs none, its name picks a free one."""

_PLACES: Final = len(PALETTE) * len(MARKERS)

_SETTINGS: Final[dict[RcKeyType, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "image.interpolation": "nearest",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    line: str


@contextmanager
def house_style() -> Generator[None]:
    """The settings to draw and save under; also a decorator. Restores what was set before."""
    with mpl.rc_context():
        mpl.rcdefaults()
        with mpl.rc_context(_SETTINGS):
            yield


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """The look of every label; no two alike as long as the places last.

    A name in `METHODS` always looks the same. Any other label takes the place its name hashes to,
    and only if another unknown label of the figure has that place, the next free one.
    """
    wanted = list(dict.fromkeys(labels))
    taken = {label: METHODS.index(label) for label in wanted if label in METHODS}
    free = range(len(METHODS), _PLACES)
    for label in sorted(set(wanted) - set(taken)):
        start = _hash(label)
        tries = [free[(start + step) % len(free)] for step in range(len(free))]
        used = set(taken.values())
        taken[label] = next((place for place in tries if place not in used), tries[0])
    return {label: _look(taken[label]) for label in wanted}


def _hash(label: str) -> int:
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")


def _look(place: int) -> Look:
    """Neighbours differ in colour and marker; 7 and 11 share no factor, so 77 pairs differ."""
    return Look(
        PALETTE[place % len(PALETTE)],
        MARKERS[place % len(MARKERS)],
        LINES[place // len(PALETTE) % len(LINES)],
    )


@house_style()
def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.pdf; their bytes depend on the figure alone."""
    png, pdf = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf"))
    figure.savefig(png, metadata={"Software": None})
    figure.set_layout_engine("none")  # what the first drawing laid out holds for the second
    figure.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf
