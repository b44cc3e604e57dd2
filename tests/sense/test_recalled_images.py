"""Recalled images stay recognisable to a classifier trained on real ones (BrainCL's premise)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from harness.data import shelf
from harness.data.sets import digits, fashion_mnist
from methods.base import Batch
from methods.parts.long_term_memory import TaskMemory
from methods.parts.memory_module import Learning, MemoryModule, Sizes

EPOCHS, BATCH = 15, 32


def fashion():
    if not fashion_mnist.DEBIAN.is_dir():
        pytest.skip(f"Fashion-MNIST is not in {fashion_mnist.DEBIAN} (dataset-fashion-mnist)")
    config = fashion_mnist.Config(per_class=160, test_per_class=100)
    with TemporaryDirectory() as root:  # what is mapped from there outlives it
        return shelf.read("fashion_mnist", config, Path(root))


SETS = {"digits": lambda: digits.load(digits.Config(), Path("/nowhere")), "fashion": fashion}


def memory_of(batch, epochs):
    """The cues of images by a module trained on them for some epochs."""
    torch.manual_seed(0)
    module = MemoryModule(1, Sizes(channels=16, cue_channels=16, stages=2, support=16))
    rng = torch.Generator().manual_seed(0)
    order = [rows for _ in range(epochs) for rows in torch.randperm(len(batch.x)).split(BATCH)]
    batches = [Batch(batch.x[rows], None, rows) for rows in order]
    learning = Learning(lr=2e-3, entropy_lr=2e-2, rate_lambda=0.03)
    for _ in module.learn(batches, learning, lambda a, b: 2.55**2 * F.mse_loss(a, b), rng):
        pass
    return TaskMemory.encode(module, module.completion, batch)


def accuracy(model, x, y):
    return float((model.predict(x.flatten(1).numpy()) == y.numpy()).mean())


@pytest.mark.parametrize("name", SETS)
def test_a_classifier_of_real_images_recognises_recalled_ones(name):
    dataset = SETS[name]()
    real, other = dataset.test, dataset.train  # it has never seen those that are recalled
    model = KNeighborsClassifier(5).fit(real.x.flatten(1).numpy(), real.y.numpy())
    batch = Batch(other.x, other.y, torch.arange(len(other.y)))
    memory = memory_of(batch, EPOCHS)
    recalled = torch.cat([*memory.images()])
    truth, found = (accuracy(model, x, other.y) for x in (other.x, recalled))
    assert found > truth - 0.05
    bits = memory.book.bits().double().mean() / other.x[0].numel()
    assert bits < 8 / 3  # a raw pixel has 8
    untrained = torch.cat([*memory_of(batch, 0).images()])
    assert accuracy(model, untrained, other.y) < truth - 0.3
