"""What BrainCL keeps of every task (arXiv:2504.14727), and the images it recalls from that.

Of a memory module the completion network stays, and a book of range-coded cues.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from methods.base import Batch
from methods.parts.compression import cropped
from methods.parts.cue_book import CueBook, network_digest
from methods.parts.extra_parameters import ExtraParameters
from methods.parts.memory_module import CENTRE, CHUNK, SPREAD, MemoryModule
from methods.parts.transfers import sent


@final
@dataclass(frozen=True, slots=True, eq=False)
class TaskMemory:
    """The cues of some images, and the network that completes them."""

    book: CueBook
    net: nn.Module

    @classmethod
    def encode(cls, module: MemoryModule, net: nn.Module, images: Batch) -> TaskMemory:
        """The cues of all these labelled images.

        Args:
            module: trained; its entropy model gives the tables.
            net: its completion network, as it is stored.
            images: of one size.

        Raises:
            OverflowError: if the module diverged.
        """
        book = CueBook.encode(
            module.cues(images.x),
            module.entropy.symbol_probabilities,
            images.labels(),
            images.index,
            image_size=(images.x.shape[2], images.x.shape[3]),
            network=network_digest(net),
        )
        return cls(book, net)

    def keep(self, positions: Tensor) -> TaskMemory:
        """The cues at these positions alone, in that order."""
        return TaskMemory(self.book.keep(positions), self.net)

    def images(self, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` images or all, recalled in chunks: uint8 (at most CHUNK, C, H, W).

        Chunks are always the same ones, so that an image is recalled alike at every call.
        """
        count = len(self.book) if count is None else min(count, len(self.book))
        net = copy.deepcopy(self.net).float()
        for start in range(0, count, CHUNK):
            chunk = range(start, min(start + CHUNK, len(self.book)))
            cues = torch.from_numpy(self.book.decode(chunk))
            yield recalled(net, cues, self.book.image_size)[: count - start]


@torch.no_grad()
def recalled(net: nn.Module, cues: Tensor, size: tuple[int, int]) -> Tensor:
    """Images of (H, W) = `size` from integer cues (B, C, h, w), uint8 on the network's device."""
    device = next(net.parameters()).device
    pixels = cropped(net(cues.to(device).float()), size) * SPREAD + CENTRE
    return (255 * pixels).round_().clamp_(0, 255).byte()


@final
class CompletionNets(ExtraParameters):
    """The completion networks of all tasks, in half precision if so wanted; never trained."""

    def __init__(self, make: Callable[[], nn.Module], *, half: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList()
        self._make = make
        self._dtype = torch.float16 if half else torch.float32

    def stored(self, net: nn.Module) -> nn.Module:
        """A copy of a trained network as it is kept."""
        return copy.deepcopy(net).to(self._dtype).requires_grad_(requires_grad=False)

    def resize(self, tasks: int, device: torch.device) -> None:
        """As many networks, whose weights are still to be loaded."""
        with torch.device("meta"):
            self.nets = nn.ModuleList(self.stored(self._make()) for _ in range(tasks))
        self.nets.to_empty(device=device)


@final
class LongTermMemory:
    """What is kept of every task learned, the oldest first; its payloads count as `cues`.

    Args:
        completions: the networks, a part of their own, which is loaded before this one.
    """

    kind = "cues"

    def __init__(self, completions: CompletionNets) -> None:
        self._completions = completions
        self.books: list[CueBook] = []

    def add(self, memory: TaskMemory) -> None:
        """Keep the memory of another task."""
        self.books.append(memory.book)
        self._completions.nets.append(memory.net)

    def tasks(self) -> list[TaskMemory]:
        """The memory of each task."""
        nets = self._completions.nets
        return [TaskMemory(book, net) for book, net in zip(self.books, nets, strict=True)]

    @property
    def nbytes(self) -> int:
        return sum(book.payload_nbytes for book in self.books)

    def state_dict(self) -> dict[str, Any]:
        books = [torch.frombuffer(bytearray(b.to_bytes()), dtype=torch.uint8) for b in self.books]
        return {"books": books}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.books = []
        for stored, net in zip(state_dict["books"], self._completions.nets, strict=True):
            data, digest = stored.cpu().numpy().tobytes(), network_digest(net)
            self.books.append(CueBook.from_bytes(data, where="checkpoint", network=digest))


@final
class CueIndex:
    """The headers, tables and labels of a long-term memory, which are stored with its cues."""

    kind = "cue index"

    def __init__(self, memory: LongTermMemory) -> None:
        self._memory = memory

    @property
    def nbytes(self) -> int:
        return sum(book.index_nbytes for book in self._memory.books)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        del state_dict


@final
@dataclass(frozen=True, slots=True)
class RecalledBatches:
    """Shuffled batches of recalled images, `epochs` times; see `methods.base.Batches`.

    A single last image joins the batch before it: batch normalisation cannot train on one.
    """

    images: Batch
    size: int
    epochs: int
    milestones: tuple[int, ...]
    rng: torch.Generator

    def __len__(self) -> int:
        return self.epochs * (len(self._stops()) + 1)

    def __iter__(self) -> Iterator[Batch]:
        x, y, index = self.images.x, self.images.labels(), self.images.index
        for _ in range(self.epochs):
            order = sent(torch.randperm(len(x), generator=self.rng), x.device)
            for rows in order.tensor_split(self._stops()):
                yield Batch(x[rows], y[rows], index[rows])

    def _stops(self) -> list[int]:
        return [*range(self.size, len(self.images.x) - 1, self.size)]


def recollection(memories: Sequence[TaskMemory]) -> Batch:
    """All images of these memories, recalled, on the device of the first one's network."""
    total = sum(len(memory.book) for memory in memories)
    x: Tensor | None = None
    done = 0
    for chunk in chain.from_iterable(memory.images() for memory in memories):
        if x is None:  # filled in place: the parts and their sum would take twice the room
            x = chunk.new_empty((total, *chunk.shape[1:]))
        x[done : done + len(chunk)] = chunk
        done += len(chunk)
    if x is None:
        raise ValueError("nothing to recall: the memories are empty")
    y, rows = (
        torch.cat(columns).to(x.device)
        for columns in (
            [memory.book.labels for memory in memories],
            [memory.book.rows for memory in memories],
        )
    )
    return Batch(x, y, rows)
