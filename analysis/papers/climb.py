"""CLIMB: online continual self-supervised learning (CoLLAs 2026)."""

from __future__ import annotations

from typing import Final

from analysis.paper import Paper, PaperFigure, PaperTable

_METHODS: Final = ("climb", "cla_e", "cla_r", "osiris_r", "minred", "scale")

PAPER: Final = Paper(
    name="climb",
    title="CLIMB (CoLLAs 2026)",
    protocols=("online_ssl",),
    items=(
        PaperTable(
            "Main table: continual and final accuracy, regular splits",
            metrics=("CA", "FA"),
            suite="climb_regular",
            labels=_METHODS,
            source="CLIMB (CoLLAs 2026), main table",
            distribution="regular",
            requires={"protocol.objective.name": "simclr"},
        ),
        PaperTable(
            "Irregular table: continual and final accuracy, irregular splits",
            metrics=("CA", "FA"),
            suite="climb_irregular",
            labels=_METHODS,
            distribution="irregular",
        ),
        PaperFigure(
            "Accuracy over tasks, regular splits",
            figure="accuracy_curves",
            suite="climb_regular",
            labels=_METHODS,
            distribution="regular",
        ),
        PaperFigure(
            "Accuracy over tasks, irregular splits",
            figure="accuracy_curves",
            suite="climb_irregular",
            labels=_METHODS,
            distribution="irregular",
        ),
        PaperFigure(
            "CLIMB's memory over time",
            figure="memory_kinds",
            suite="climb_regular",
            labels=("climb",),
        ),
    ),
)
