"""What a method's memory is made of as tasks are learned: a small panel a method, bytes stacked."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples
from analysis.figures.panels import Panel
from analysis.figures.style import PALETTE, house_style

_ACROSS = 4
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")


@house_style()
def memory_kinds(panel: Panel) -> Figure | None:
    """MB of each kind after each task, the mean over seeds; methods that hold nothing left out."""
    held = held_by_kind(panel.costs)
    if held.empty:
        return None
    kinds = list(dict.fromkeys(held["condition"]))
    labels = [
        label for label in map(str, panel.rows["label"].unique()) if label in set(held["label"])
    ]
    figure, axes = multiples(labels, ratio=0.75, margin=0.6, across=_ACROSS)
    for label in labels:
        own = held[held["label"] == label]
        table = own.pivot_table(
            index="after_task", columns="condition", values="value", fill_value=0.0
        ).reindex(columns=kinds, fill_value=0.0)
        plot = axes[label]
        filled = plot.stackplot(
            table.index + 1,
            1e-6 * table.to_numpy().T,
            colors=[PALETTE[number % len(PALETTE)] for number in range(len(kinds))],
            labels=kinds,
            linewidth=0,
        )
        for number, one in enumerate(filled):
            one.set_hatch(_HATCHES[number % len(_HATCHES)])
            one.set_edgecolor("white")
        plot.set_xlim(1, max(2, panel.setting.num_tasks))
        plot.set_ylim(bottom=0)
        plot.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        plot.yaxis.set_major_locator(MaxNLocator(4))
    handles, names = axes[labels[0]].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(kinds)))
    figure.supxlabel("tasks learned", fontsize=8)
    figure.supylabel("MB held", fontsize=8)
    return figure


def held_by_kind(costs: pd.DataFrame) -> pd.DataFrame:
    """The bytes above 0 that trials hold of each kind (`condition`), after every task."""
    chosen = (costs["metric"] == "method_memory_bytes").to_numpy()
    rows = costs[chosen & costs["condition"].notna().to_numpy()]
    rows = rows[(rows["value"] > 0).to_numpy()]
    return rows.astype({"condition": object, "label": object})


FIGURE = PanelFigure("memory_kinds", "What memories are made of", memory_kinds)
