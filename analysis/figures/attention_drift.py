"""How far attention to the images of each task has moved by the end: a line a method."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.attention import of_trial
from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches, line_over_tasks
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style


@house_style()
def attention_drift(panel: Panel) -> Figure | None:
    """Mean cosine, over images and seeds, of maps after the task itself and after the last."""
    trials = panel.rows.drop_duplicates(["label", "trial_id"])
    frames = [
        of_trial(panel.root, str(trial), panel.setting.num_tasks).assign(label=str(label))
        for label, trial in zip(trials["label"], trials["trial_id"], strict=True)
    ]
    found = pd.concat(frames) if frames else pd.DataFrame()
    if found.empty:
        return None
    labels = [label for label in panel.rows["label"].unique() if (found["label"] == label).any()]
    style = looks_in(panel.rows, labels)
    figure = Figure(figsize=(COLUMN_INCHES, 2.0 + legend_inches(labels)))
    axes = figure.subplots()
    for label in labels:
        means = found[found["label"] == label].groupby("task")["cosine"].mean()
        line_over_tasks(axes, means, label, style[label])
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("task of the image")
    axes.set_ylabel("cosine with the last map")
    legend_below(figure, labels)
    return figure


FIGURE = PanelFigure("attention_drift", "How alike attention is at the end", attention_drift)
