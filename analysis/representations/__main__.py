"""Write the analyses of a store: `python -m analysis.representations RESULTS [--suite NAME]`.

Tables (CSV) and figures (PNG, PDF) go to RESULTS/representations: `compare` (EDD's Figure 6),
`alignment` (Figure 7), `displacement` (Figure A.1).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.representations import (
    alignment_maps,
    by_setting,
    displacement_curves,
    similarity_to_joint,
)
from analysis.figures.style import save
from analysis.representations import alignment, compare, displacement
from analysis.trial_files import StoreError

Analysis = Callable[[Path, str | None], pd.DataFrame]

ANALYSES: Final[dict[str, tuple[Analysis, Callable[[pd.DataFrame], Figure]]]] = {
    "compare": (compare, similarity_to_joint),
    "alignment": (alignment, alignment_maps),
    "displacement": (displacement, displacement_curves),
}


def write(root: Path, suite: str | None, out: Path) -> int:
    """Write every analysis that the store allows; what it lacks is said in one line.

    Returns:
        How many were written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for name, (analyse, draw) in ANALYSES.items():
        print(f"{name} ...", flush=True)  # noqa: T201 - a command
        try:
            table = analyse(root, suite)
        except StoreError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)  # noqa: T201
            continue
        table.to_csv(out / f"{name}.csv", index=False)
        for setting, rows in by_setting(table):
            save(draw(rows), out / f"{name}-{re.sub(r'[^0-9A-Za-z]+', '_', setting)}")
        written += 1
    return written


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if anything was written, 2 if the store has nothing to analyse."""
    parser = argparse.ArgumentParser(prog="python -m analysis.representations")
    parser.add_argument("results", type=Path, help="a results folder")
    parser.add_argument("--suite", help="its trials alone")
    parser.add_argument("--out", type=Path, help="default RESULTS/representations")
    chosen = parser.parse_args(arguments)
    out = chosen.out or chosen.results / "representations"
    written = write(chosen.results, chosen.suite, out)
    if written:
        print(f"written to {out}")  # noqa: T201
    return 0 if written else 2


if __name__ == "__main__":
    sys.exit(main())
