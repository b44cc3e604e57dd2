"""Final accuracy against what it costs: a mark a label, lines join the variants of a method."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style, logarithmic
from analysis.scalars import SCALARS, final_scalars
from analysis.stats import spread

_DECADES = 30.0  # a logarithmic axis, if the largest cost is so many times the smallest


@house_style()
def tradeoff(panel: Panel, cost: str, axis: str) -> Figure | None:
    """FA against a scalar of `analysis.scalars`, means over seeds with ± one standard deviation."""
    scores = final_scores(panel, cost)
    if scores.empty or scores[cost].nunique() < 2:
        return None
    labels = [str(label) for label in scores["label"].unique()]
    style = looks_in(panel.rows, labels)
    figure = Figure(figsize=(COLUMN_INCHES, 2.3 + legend_inches(labels)))
    axes = figure.add_subplot()
    paid = {label: spread(scores.loc[scores["label"] == label, cost]).mean for label in labels}
    won = {label: spread(scores.loc[scores["label"] == label, "FA"]) for label in labels}
    for _, part in scores.groupby("method", sort=False):
        variants = sorted(map(str, part["label"].unique()), key=lambda label: paid[label])
        axes.plot(
            [paid[label] for label in variants],
            [won[label].mean for label in variants],
            color=style[variants[0]].color,
            linewidth=0.8,
            zorder=1,
        )
    for label in labels:
        axes.errorbar(
            paid[label],
            won[label].mean,
            yerr=won[label].std if won[label].n > 1 else None,
            color=style[label].color,
            marker=style[label].marker,
            linestyle="",
            label=label,
        )
    _scale(axes, list(paid.values()))
    axes.set_xlabel(axis)
    axes.set_ylabel("final accuracy (%)")
    legend_below(figure, labels)
    return figure


def final_scores(panel: Panel, cost: str) -> pd.DataFrame:
    """One row a trial that measured both: `label`, `method`, `seed`, `FA`, the cost, as shown."""
    last = panel.rows[(panel.rows["after_task"] == panel.setting.num_tasks - 1).to_numpy()]
    trials = last.drop_duplicates(["label", "trial_id"])[["label", "method", "seed", "trial_id"]]
    accuracy = 100 * last.groupby("trial_id")["value"].mean()
    paid = SCALARS[cost].scale * final_scalars(panel.last, [cost])[cost]
    for name, values in (("FA", accuracy), (cost, paid)):
        trials = trials.assign(**{name: trials["trial_id"].map(values.to_dict())})
    return trials.dropna().astype({"label": object, "method": object})


def _scale(axes: Axes, values: list[float]) -> None:
    """Logarithmic where costs differ by much; linear around 0, which some methods hold."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > _DECADES * min(positive):
        if len(positive) == len(values):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive))
            axes.set_xlim(left=0)
        logarithmic(axes.xaxis)
