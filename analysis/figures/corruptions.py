"""Accuracy under each corruption after the last task: a line of dots a corruption."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_columns, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style

_LINE_INCHES = 0.17
_CLEAN = "none"


@house_style()
def corruptions(panel: Panel) -> Figure | None:
    """Mean over severities and seeds; the first line is without any corruption."""
    table = corruption_accuracies(panel.last)
    if table.empty:
        return None
    labels = [str(label) for label in table.index]
    style = looks_in(panel.rows, labels)
    height = 0.6 + _LINE_INCHES * table.shape[1] + legend_inches(labels)
    figure = Figure(figsize=(COLUMN_INCHES, height))
    axes = figure.subplots()
    lines = range(table.shape[1])
    for label in labels:
        axes.plot(
            100 * table.loc[label],
            lines,
            linestyle="",
            marker=style[label].marker,
            color=style[label].color,
            label=label,
        )
    axes.set_yticks(list(lines), [str(name).replace("_", " ") for name in table.columns])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy (%)")
    figure.legend(loc="outside lower center", ncols=legend_columns(labels))
    return figure


def corruption_accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of each label (rows) under each corruption (columns, `none` first)."""
    own = rows[(rows["evaluator"] == "corruption").to_numpy()]
    clean = own[(own["metric"] == "clean_accuracy").to_numpy()].assign(condition=_CLEAN)
    corrupted = own[(own["metric"] == "accuracy").to_numpy() & own["condition"].notna().to_numpy()]
    corrupted = corrupted[~corrupted["condition"].astype(str).str.contains("/").to_numpy()]
    found = pd.concat([clean, corrupted]).astype({"condition": str})
    return found.pivot_table(
        index="label", columns="condition", values="value", sort=False, observed=True
    )


FIGURE = PanelFigure("corruptions", "Accuracy under corruptions after the last task", corruptions)
