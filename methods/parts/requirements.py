"""What a method asks of the settings around it, refused when planning with one clear sentence."""

from __future__ import annotations

from methods.base import Planned, StagedBackbone


def require_finite(settings: object, *names: str, above_zero: bool = False) -> None:
    """Refuse numbers among a method's settings that are negative, infinite or not numbers.

    Raises:
        ValueError: naming the setting.
    """
    for name in names:
        value: float = getattr(settings, name)
        if not 0 <= value < float("inf") or (above_zero and not value):
            least = "above 0" if above_zero else "of at least 0"
            raise ValueError(f"{name} must be a finite number {least}, got {value}")


def require_room(planned: Planned, places: int, what: str) -> None:
    """Refuse a buffer with less than an image for each of `places` things, `what` in the plural.

    Raises:
        ValueError: naming the setting.
    """
    size = planned.training.buffer_size
    if size < places:
        raise ValueError(
            f"buffer_size must hold an image of each of the {places} {what}, but it is {size}"
        )


def require_stages(planned: Planned, count: int) -> None:
    """Refuse a backbone without at least `count` stages between which there are feature maps.

    Raises:
        ValueError: saying which backbones have them.
    """
    net = planned.backbone
    if not isinstance(net, StagedBackbone) or len(net.stages) < count:
        raise ValueError(
            f"backbone: it works on feature maps and needs {count} stages or more, as a cnn or a "
            "resnet has"
        )


def require_own_classes(planned: Planned) -> None:
    """Refuse tasks that share their classes, as a cut by domain makes them.

    Raises:
        ValueError: naming the setting.
    """
    if sum(planned.task_classes) > planned.num_classes:
        raise ValueError("distribution: it needs tasks with classes of their own, not domains")


def require_two_images(planned: Planned, held: int) -> None:
    """Refuse a replay that goes through the network by itself and may be a single image.

    Args:
        planned: of the trial.
        held: the fewest images that are in the memory when something is replayed.

    Raises:
        ValueError: if the network cannot train on one.
    """
    size = min(held, planned.training.replay_batch)
    if planned.normalises_vectors and size < 2:
        raise ValueError(
            "buffer_size and replay_batch: a single image would be replayed, and batch "
            "normalisation cannot train on one"
        )
