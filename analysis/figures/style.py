"""One look for all figures: a fixed colour, marker and line a method, sizes for two-column papers.

Colours are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), which people with any
colour vision can tell apart; yellow is left out, being hard to see on white.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

COLUMN_INCHES: Final = 3.25
PAGE_INCHES: Final = 6.75
DPI: Final = 200

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
LINES: Final = ("-", "--", "-.", ":")

METHODS: Final = (
    # Sevens, as there are seven colours: the methods of one comparison do not share any.
    *("climb", "cla_e", "cla_r", "minred", "osiris_r", "scale", "iid"),
    *("cla_b", "cassle", "cassle_r", "replay", "lump", "no_strategy", "der_dark"),
    *("joint", "finetune", "ewc", "exemplar_replay", "icarl", "der_expand", "braincl"),
    *("pec", "lwf_mc", "edd", "rpc", "lucir", "er", "dualnet"),
    *("si", "ewc_online", "lwf", "agem", "gem", "hal", "fdr"),
    *("pnn", "gss", "cls_er"),
)
"""Names with a reserved place in the cycle; a new method needs none, its name picks a free one."""

_PALEST: Final = 0.6
"""How far towards white the last of several labels of one method goes; still seen on paper."""

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
    "text.parse_math": False,  # a label may hold any sign
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


def looks(labels: Iterable[str] | Mapping[str, str]) -> dict[str, Look]:
    """The look of every label; no two alike as long as the places last.

    A method in `METHODS` always has the same colour, and so has any other by what its name hashes
    to; only if another unknown method of the figure has that place, the next free one. Several
    labels of one method are shades of its colour, with markers and lines of their own.

    Args:
        labels: with their methods; without them, each is a method of its own.
    """
    methods = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
    places = _places(dict.fromkeys(methods.values()))
    found: dict[str, Look] = {}
    for method, place in places.items():
        variants = [label for label, one in methods.items() if one == method]
        for number, label in enumerate(variants):
            found[label] = _variant(_look(place), place, number, len(variants))
    return {label: found[label] for label in methods}


def _places(methods: Iterable[str]) -> dict[str, int]:
    wanted = list(methods)
    taken = {method: METHODS.index(method) for method in wanted if method in METHODS}
    free = range(len(METHODS), _PLACES)
    for method in sorted(set(wanted) - set(taken)):
        start = _hash(method)
        tries = [free[(start + step) % len(free)] for step in range(len(free))]
        used = set(taken.values())
        taken[method] = next((place for place in tries if place not in used), tries[0])
    return taken


def _variant(look: Look, place: int, number: int, count: int) -> Look:
    """The look of a method's label `number` of `count`: the first keeps the method's own."""
    if not number:
        return look
    share = _PALEST * number / (count - 1)  # towards white
    red, green, blue = (part + (1 - part) * share for part in to_rgb(look.color))
    return Look(
        to_hex((red, green, blue)).upper(),
        MARKERS[(place + number) % len(MARKERS)],
        LINES[(LINES.index(look.line) + number) % len(LINES)],
    )


def logarithmic(axis: Axis) -> None:
    """Write the powers of ten of a logarithmic axis without the mathematics that is off."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


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
def save(figure: Figure, stem: Path, about: str = "") -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.pdf; their bytes depend on the figure and `about` alone.

    `about` goes to their metadata: in a PNG the text `Description`, in a PDF the `Subject`.
    """
    png, pdf = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf"))
    figure.savefig(png, metadata={"Software": None} | ({"Description": about} if about else {}))
    figure.set_layout_engine("none")  # what the first drawing laid out holds for the second
    figure.savefig(pdf, metadata={"CreationDate": None} | ({"Subject": about} if about else {}))
    return png, pdf
