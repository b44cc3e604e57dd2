"""EDD: exemplar-free class-incremental learning (arXiv:2511.09871)."""

from __future__ import annotations

from typing import Final

from analysis.paper import Paper, PaperFigure, PaperTable

_METHODS: Final = (
    *("joint", "finetune", "si", "ewc_online", "lwf", "agem", "hal", "gem", "fdr", "pnn"),
    *("dualnet", "lwf_mc", "lucir", "rpc", "gss", "pec", "edd"),
)
_BESIDE: Final = ("er", "cls_er", "der_dark")  # not in the paper
_ANALYSED: Final = ("joint", "finetune", "lwf_mc", "lucir", "rpc", "edd")
_ABLATION: Final = ("naive_ce", "naive", "align", "orth", "align_orth", "ba_align_orth")
_SENSITIVITY: Final = {
    "A.3": (
        "the share of slots that is frozen",
        "pruning_ratio",
        (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    ),
    "A.4": ("the weight of memory alignment", "lambda_mem", (0.1, 1.0, 5.0, 10.0, 20.0, 50.0)),
    "A.5": ("the weight of orthogonality", "lambda_ortho", (0.1, 1.0, 5.0, 10.0, 20.0)),
    "A.6": ("the slots of each memory", "slots", (100, 500, 1000, 2000, 5000)),
}

PAPER: Final = Paper(
    name="edd",
    title="EDD (arXiv:2511.09871)",
    protocols=("class_incremental_edd",),
    items=(
        PaperTable(
            "Table 1: final accuracy",
            metrics=("FA",),
            suite="edd_table1",
            labels=_METHODS,
            beside=_BESIDE,
            source="EDD (arXiv:2511.09871), Table 1",
        ),
        PaperTable(
            "Table 2: what each part of EDD adds",
            metrics=("FA",),
            suite="edd_table2",
            labels=_ABLATION,
            beside=("lwf_mc",),
            source="EDD (arXiv:2511.09871), Table 2",
        ),
        *(
            PaperTable(
                f"Table {number}: {what}",
                metrics=("FA",),
                suite=f"edd_table_a{number[-1]}",
                labels=tuple(f"{setting} {value}" for value in values),
                source=f"EDD (arXiv:2511.09871), Table {number}",
            )
            for number, (what, setting, values) in _SENSITIVITY.items()
        ),
        PaperFigure(
            "Figures 4 and 5: accuracy over tasks", "accuracy_curves", "edd_table1", _METHODS
        ),
        PaperFigure(
            "Figure 6: class geometry beside that of joint training",
            "similarity_to_joint",
            "edd_representations",
            _ANALYSED,
        ),
        PaperFigure(
            "Figure 7: agreement with joint training, class by class",
            "alignment_maps",
            "edd_representations",
            _ANALYSED,
        ),
        PaperFigure(
            "Figure A.1: features in the plane (t-SNE)",
            "feature_maps",
            "edd_representations",
            _ANALYSED,
        ),
        PaperFigure(
            "Figure A.1: how far class centroids move",
            "displacement_curves",
            "edd_representations",
            _ANALYSED,
        ),
        PaperFigure(
            "Figure A.2: accuracy of each task over time", "task_accuracies", "edd_table1", _METHODS
        ),
        PaperFigure(
            "Figures A.3 and A.4: time and growth", "costs_over_tasks", "edd_table1", _METHODS
        ),
    ),
)
