"""Each task's own accuracy over time: a small panel a method, a line a task (EDD's Figure A.2)."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples
from analysis.figures.panels import Panel, matrices
from analysis.figures.style import house_style

_COLORS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.85, 256)))  # no yellow on white
_ACROSS = 4


@house_style()
def task_accuracies(panel: Panel) -> Figure | None:
    """A[k,i] against k, from the task's own stage on; the mean over seeds."""
    means = {label: a.mean(0) for label, a in matrices(panel.rows).items()}
    means = {label: a for label, a in means.items() if np.isfinite(a[:-1]).any()}
    if not means:  # measured after the last task alone
        return None
    figure, axes = multiples(list(means), ratio=0.75, margin=1.25, across=_ACROSS)
    tasks = panel.setting.num_tasks
    scale = Normalize(1, max(2, tasks))
    stages = np.arange(1, tasks + 1)
    for label, a in means.items():
        plot = axes[label]
        for task in range(tasks):
            plot.plot(
                stages[task:],
                a[task:, task],
                color=_COLORS(scale(task + 1)),
                marker="o" if task == tasks - 1 else None,  # it has but one point
                markersize=2,
                linewidth=0.9,
            )
        plot.set_xlim(0.5, tasks + 0.5)
        plot.set_ylim(0, 102)
        plot.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel("tasks learned", fontsize=8)
    figure.supylabel("accuracy (%)", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(scale, _COLORS), ax=list(axes.values()), shrink=0.9, pad=0.02
    )
    bar.set_label("task")
    bar.locator = MaxNLocator(5, integer=True)
    bar.update_ticks()
    return figure


FIGURE = PanelFigure("task_accuracies", "Accuracy of each task over time", task_accuracies)
