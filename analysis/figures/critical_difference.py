"""Critical-difference diagram: average ranks, bars join methods that tests do not tell apart."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.across import Across
from analysis.figures.style import PAGE_INCHES, house_style, looks


@house_style()
def critical_difference(found: Across) -> Figure | None:
    """Ranks of `Across`; a bar joins methods whose pairwise p is 0.05 or more.

    Wilcoxon's signed-rank tests over benchmarks with Holm's correction (Benavoli et al., 2016, JMLR
    17(5)), which, unlike Nemenyi's, do not depend on which other methods there are. None where
    there are too few benchmarks for tests.
    """
    if found.pairwise is None:
        return None
    from scikit_posthocs import critical_difference_diagram

    ranks = found.table.set_index("label")["rank"]
    figure = Figure(figsize=(PAGE_INCHES, 0.9 + 0.16 * len(ranks)))
    axes = figure.add_subplot()
    style = looks(found.methods)
    critical_difference_diagram(
        ranks,
        found.pairwise,
        ax=axes,
        label_props={"fontsize": 7},
        color_palette={label: look.color for label, look in style.items()},
        crossbar_props={"color": "#444444", "linewidth": 2},
        text_h_margin=0.02,
    )
    axes.grid(visible=False)
    axes.spines["top"].set_visible(True)
    return figure
