"""What networks make of classes: EDD's Figures 6, 7 and A.1 (arXiv:2511.09871, appendix B).

Each function draws rows of the table of the same name in `analysis.representations`, of one
setting: `by_setting` parts them. Numbers are means over the seeds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples, picture_axes
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import PAGE_INCHES, house_style
from analysis.grid import Setting
from analysis.representations.stored import recorded, with_features
from analysis.representations.tables import alignment, compare, displacement, in_plane
from analysis.trial_files import StoreError

_SETTING: Final = ["suite", "protocol", "dataset", "num_tasks", "distribution"]
_QUANTITIES: Final = {
    "difference": "mean |difference| to joint",
    "correlation": "correlation with joint",
}
_METRICS: Final = {
    "cosine": "cosine with joint",
    "rotated_cosine": "cosine after rotation",
}
_ACROSS: Final = 4  # small panels on the width of a page
_MAP_COLORS: Final = colormaps["cividis"]
_LINE_COLORS: Final = ListedColormap(colormaps["viridis"](np.linspace(0, 0.85, 256)))  # no yellow
_LABEL_CHARACTERS: Final = 22
_LINE_INCHES: Final = 0.17
_LABEL_INCHES: Final = 0.9
_STAGES: Final = 5  # side by side
_IMAGES_A_CLASS: Final = 50  # of a t-SNE of all tasks, so that it takes seconds a trial


def by_setting(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each suite, protocol, data set, number of tasks and distribution, with a name."""
    for _, part in table.groupby(_SETTING, sort=False):
        one = part.iloc[0]
        setting = Setting(str(one["dataset"]), int(one["num_tasks"]), str(one["distribution"]))
        yield f"{one['suite']}, {one['protocol']}, {setting}", part


@house_style()
def similarity_to_joint(rows: pd.DataFrame) -> Figure:
    """Rows of `compare`: a column a measure of class geometry, a line a label, ± one std.

    Above how far it is from joint training's in the measure's own unit (smaller is closer), below
    their correlation over the pairs of classes (larger is closer).
    """
    labels, metrics = (list(dict.fromkeys(rows[name])) for name in ("label", "metric"))
    names = [textwrap.fill(str(label), _LABEL_CHARACTERS) for label in labels]
    lines = sum(name.count("\n") + 1 for name in names)
    height = 0.55 + _LINE_INCHES * lines
    figure = Figure(figsize=(PAGE_INCHES, 2 * height))
    grid = figure.subplots(len(_QUANTITIES), len(metrics), squeeze=False, sharey=True)
    for (quantity, caption), line in zip(_QUANTITIES.items(), grid, strict=True):
        for metric, axes in zip(metrics, line, strict=True):
            _dots(axes, rows[rows["metric"] == metric], quantity, labels)
            axes.set_xlabel(caption, fontsize=7)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    for metric, axes in zip(metrics, grid[0], strict=True):
        axes.set_title(str(metric).replace("_", " "))
    grid[0, 0].set_yticks(range(len(labels)), names)
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    return figure


@house_style()
def alignment_maps(rows: pd.DataFrame, metric: str = "cosine") -> Figure:
    """Rows of `alignment`: one small map a label, tasks down, classes across; blank: not yet seen.

    Raises:
        ValueError: if the rows hold no such metric of single classes.
    """
    by_class = rows[rows["class"] >= 0]  # not of all classes together
    chosen = by_class[by_class["metric"] == metric]
    if chosen.empty:
        known = ", ".join(dict.fromkeys(by_class["metric"]))
        raise ValueError(f"no classes have a metric '{metric}'; there are {known}")
    values = chosen["value"]
    scale = Normalize(min(0.0, float(values.min())), 1.0)
    figure, panels = _panels(chosen, "class", "after task")
    for part, axes in panels:
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        means = part.pivot_table(index="after_task", columns="class", values="value")
        size = int(part["num_tasks"].iloc[0]), int(chosen["class"].max()) + 1
        shown = means.reindex(index=range(size[0]), columns=range(size[1])).to_numpy()
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        edges = (-0.5, size[1] - 0.5, size[0] + 0.5, 0.5)
        axes.imshow(
            np.ma.masked_invalid(shown), norm=scale, cmap=_MAP_COLORS, aspect="auto", extent=edges
        )
    caption = _METRICS.get(metric, metric)
    _color_bar(figure, ScalarMappable(scale, _MAP_COLORS), panels, caption)
    return figure


@house_style()
def displacement_curves(rows: pd.DataFrame) -> Figure:
    """Rows of `displacement`: one small panel a label, one line a class, from where it was learned.

    Colours say which task brought the class. Every panel has a scale of its own, as every network
    has a feature space of its own.
    """
    tasks = int(rows["num_tasks"].iloc[0])
    scale = Normalize(1, max(2, tasks))
    figure, panels = _panels(rows, "tasks learned", "distance moved")
    for part, axes in panels:
        for _, line in part.groupby("class"):
            first = int(line["first_task"].iloc[0])
            means = line.groupby("after_task")["distance"].mean()
            axes.plot(
                means.index + 1,
                means.to_numpy(),
                color=_LINE_COLORS(scale(first + 1)),
                marker="o" if first == tasks - 1 else None,  # it has but one point
                markersize=2,
                linewidth=0.8,
            )
        axes.set_xlim(0.5, tasks + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(bottom=0)
    bar = _color_bar(figure, ScalarMappable(scale, _LINE_COLORS), panels, "first learned in task")
    bar.locator = MaxNLocator(5, integer=True)
    return figure


@house_style()
def feature_maps(panel: Panel) -> Figure | None:
    """Features in the plane, a line a label, after up to five tasks: one t-SNE a trial.

    A dot is an image, coloured by the task that brings its class; the first seed's trial.
    """
    try:
        trials = with_features(panel.root, panel.suite, _where(panel))
    except StoreError:
        return None
    wanted = set(panel.rows["label"].astype(str))
    trials = trials[trials["label"].isin(list(wanted))].drop_duplicates("label")
    kept = {
        str(line["label"]): recorded(panel.root, str(line["trial_id"]))
        for line in trials.to_dict("records")
    }
    tasks = panel.setting.num_tasks
    kept = {label: one for label, one in kept.items() if len(one.after_task) == tasks}
    if not kept:
        return None
    stages = np.unique(np.linspace(0, tasks - 1, min(_STAGES, tasks)).round().astype(int))
    side = (PAGE_INCHES - _LABEL_INCHES) / len(stages)
    figure = Figure(figsize=(PAGE_INCHES, 0.4 + len(kept) * side))
    grid = figure.subplots(len(kept), len(stages), squeeze=False)
    scale = Normalize(1, max(2, tasks))
    for line, (label, found) in zip(grid, kept.items(), strict=True):
        plane = in_plane(found, _IMAGES_A_CLASS, seed=0)
        first = plane.first_task[np.searchsorted(plane.classes, plane.label)]
        for axes, stage in zip(line, stages, strict=True):
            picture_axes(axes)
            seen = first <= stage
            spots = plane.vectors[stage][seen]
            colors = _LINE_COLORS(scale(first[seen] + 1))
            axes.scatter(spots[:, 0], spots[:, 1], c=colors, s=1.5, linewidths=0)
        line[0].set_ylabel(textwrap.fill(label, 12), rotation=0, ha="right", va="center")
    for axes, stage in zip(grid[0], stages, strict=True):
        axes.set_title(f"after task {stage + 1}", fontsize=7)
    return figure


def _where(panel: Panel) -> dict[str, object]:
    return {"protocol": panel.protocol, **asdict(panel.setting)}


def _of_panel(
    panel: Panel, analyse: Callable[..., pd.DataFrame], draw: Callable[[pd.DataFrame], Figure]
) -> Figure | None:
    """Draw an analysis of a panel's trials; None if they kept no features, or have no partner."""
    try:
        rows = analyse(panel.root, panel.suite, where=_where(panel))
    except StoreError:
        return None
    rows = rows[rows["label"].isin(list(panel.rows["label"].unique()))]
    return None if rows.empty else draw(rows)


def _dots(axes: Axes, rows: pd.DataFrame, quantity: str, labels: list[str]) -> None:
    """A mark a label at its mean over seeds, with a bar of ± one sample standard deviation."""
    for place, (label, look) in enumerate(looks_in(rows, labels).items()):
        values = rows.loc[rows["label"] == label, quantity].dropna()
        if len(values):
            axes.errorbar(
                values.mean(),
                place,
                xerr=values.std(ddof=1) if len(values) > 1 else None,
                color=look.color,
                marker=look.marker,
                markersize=4.5,
                linewidth=1,
            )
    axes.grid(visible=False, axis="x")


def _panels(
    rows: pd.DataFrame, across: str, down: str
) -> tuple[Figure, list[tuple[pd.DataFrame, Axes]]]:
    """A figure with a small panel for the rows of each label, and names for the outer axes."""
    parts = {str(label): part for label, part in rows.groupby("label", sort=False)}
    figure, axes = multiples(list(parts), ratio=0.8, margin=1.4, across=_ACROSS)
    figure.supxlabel(across, fontsize=8)
    figure.supylabel(down, fontsize=8)
    return figure, [(part, axes[label]) for label, part in parts.items()]


def _color_bar(
    figure: Figure, colors: ScalarMappable, panels: Iterable[tuple[object, Axes]], caption: str
) -> Colorbar:
    bar = figure.colorbar(colors, ax=[axes for _, axes in panels], shrink=0.9, pad=0.02)
    bar.set_label(caption)
    return bar


FIGURES: Final = (
    PanelFigure(
        "similarity_to_joint",
        "Class geometry beside that of joint training",
        lambda panel: _of_panel(panel, compare, similarity_to_joint),
        slow=True,
    ),
    PanelFigure(
        "alignment_maps",
        "Agreement with joint training on each class (cosine of class means)",
        lambda panel: _of_panel(panel, alignment, alignment_maps),
        slow=True,
    ),
    PanelFigure(
        "displacement_curves",
        "How far class centroids have moved since they were learned",
        lambda panel: _of_panel(panel, displacement, displacement_curves),
        slow=True,
    ),
    PanelFigure(
        "feature_maps", "Features in the plane (t-SNE), after tasks", feature_maps, slow=True
    ),
)
