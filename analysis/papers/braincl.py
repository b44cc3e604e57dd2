"""BrainCL: compressed memories, wake and sleep (arXiv:2504.14727)."""

from __future__ import annotations

from typing import Final

from analysis.paper import Paper, PaperFigure, PaperTable

_METHODS: Final = (
    *("joint", "finetune", "ewc", "exemplar_replay", "icarl", "der_expand", "braincl"),
)
_SWEPT: Final = (
    *_METHODS,
    *(f"braincl_{size}" for size in (50, 200, 500, 1000)),
    *(f"{name}_{n}" for name in ("exemplar_replay", "icarl", "der_expand") for n in (10, 20, 50)),
)

PAPER: Final = Paper(
    name="braincl",
    title="BrainCL (arXiv:2504.14727)",
    protocols=("braincl", "braincl_pycil70"),
    items=(
        PaperTable(
            "Table 1: extra memory, average and last accuracy",
            metrics=("extra_MiB", "CA_weighted", "FA_weighted"),
            suite="braincl_table1",
            labels=_METHODS,
            source="BrainCL (arXiv:2504.14727), Table 1",
        ),
        PaperFigure(
            "Accuracy over tasks", "accuracy_curves", suite="braincl_table1", labels=_METHODS
        ),
        PaperFigure(
            "Plasticity against stability",
            "plasticity_stability",
            suite="braincl_robustness",
            labels=_METHODS,
        ),
        PaperTable(
            "Corruption table: accuracy under corruptions",
            metrics=("FA", "mCA", "mCA_drop"),
            suite="braincl_robustness",
            labels=_METHODS,
        ),
        PaperFigure(
            "Accuracy under corruptions", "corruption_radar", "braincl_robustness", _METHODS
        ),
        PaperTable(
            "Long-tail table: many, medium and few images a class",
            metrics=("FA", "many", "medium", "few"),
            suite="braincl_robustness",
            labels=_METHODS,
        ),
        PaperTable(
            "OOD table: telling foreign images from own ones",
            metrics=("AUROC", "AUPR", "FPR95"),
            suite="braincl_robustness",
            labels=_METHODS,
        ),
        PaperFigure(
            "Confidence on own and on foreign images", "ood", "braincl_robustness", _METHODS
        ),
        PaperFigure("Memory against accuracy", "accuracy_memory", "braincl_memory", _SWEPT),
        PaperFigure("Fairness: accuracies of classes", "classes", "braincl_robustness", _METHODS),
        PaperFigure("Spectra of the features", "spectra", "braincl_robustness", _METHODS),
        PaperFigure("Confusion matrices", "confusion", "braincl_robustness", _METHODS),
        PaperFigure("Attention maps", "attention", "braincl_robustness", _METHODS),
        PaperFigure("Features in the plane (t-SNE)", "embedding", "braincl_robustness", _METHODS),
    ),
)
