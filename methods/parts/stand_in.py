"""Methods that bring a contrastive loss of their own stand in for objective simclr alone."""

from __future__ import annotations

from methods.base import Objective


def require_contrastive(objective: type[Objective]) -> None:
    """Refuse an objective that the method's own contrastive loss would silently replace.

    Raises:
        ValueError: naming the objective.
    """
    if not objective.contrastive:
        raise ValueError(
            "it brings a contrastive loss of its own, so objective "
            f"{objective.__name__} would not be used; run it with objective simclr"
        )
