"""Seeds named by purpose, so that two methods with the same seed see the same stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, final

import torch

T = TypeVar("T")


def derive_seed(root: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends only on `root` and the words in `purpose`."""
    digest = hashlib.sha256("\x1f".join(map(str, (root, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(root: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator of its own for one purpose."""
    return torch.Generator().manual_seed(derive_seed(root, *purpose))


@final
class Randomness:
    """The random streams that a method draws from: one generator per purpose and task.

    All of them live on the CPU: parameters of augmentations and slots of buffers are a few numbers
    per image, drawn on the host and sent along with the batch, so that no step waits for the
    device and a trial draws the same numbers on every device.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._task = 0
        self._streams: dict[str, torch.Generator] = {}

    def __call__(self, purpose: str) -> torch.Generator:
        """The stream for `purpose` ("augment", "buffer", ...), the same object at every call."""
        if purpose not in self._streams:
            self._streams[purpose] = generator(self._root, purpose, self._task)
        return self._streams[purpose]

    def start_task(self, position: int) -> None:
        """Restart every stream from a seed of this task, so that resuming here needs no state."""
        self._task = position
        for purpose, stream in self._streams.items():
            stream.manual_seed(derive_seed(self._root, purpose, position))

    def weights(self, make: Callable[[], T], *purpose: str | int) -> T:
        """Build a module on the CPU with weights that depend on the seed and `purpose` alone."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPU's global generator as well.
            torch.default_generator.manual_seed(derive_seed(self._root, "init", *purpose))
            return make()

    def state_dict(self) -> dict[str, Any]:
        streams = {purpose: stream.get_state() for purpose, stream in self._streams.items()}
        return {"task": self._task, "streams": streams}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        # Streams are restored in place: buffers hold on to the generator objects.
        self.start_task(state_dict["task"])
        for purpose, stream in state_dict["streams"].items():
            self(purpose).set_state(stream)
