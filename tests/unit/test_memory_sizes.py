"""What memories take, from shapes alone: the figures of BrainCL's comparison (arXiv:2504.14727)."""

import pytest
import torch
from torch import nn

from methods.backbones import resnet18
from methods.parts.expanding_net import FrozenBackbones
from methods.parts.sizes import MIB, images_nbytes, parameters_nbytes

IMAGE = (3, 224, 224)


@pytest.fixture(scope="module")
def network():
    """The ResNet-18 of large images and a classifier of 100 classes, without weights."""
    with torch.device("meta"):
        backbone = resnet18.build(resnet18.Config(), IMAGE)
        return backbone, nn.Linear(backbone.feature_dim, 100)


@pytest.mark.parametrize(("count", "mib"), [(2000, 287.11), (500, 71.78), (800, 114.84)])
def test_exemplars_take_a_byte_a_channel_of_a_pixel(count, mib):
    assert round(images_nbytes(count, IMAGE) / MIB, 2) == mib
    assert images_nbytes(3, (1, 2, 5)) == torch.zeros(3, 1, 2, 5, dtype=torch.uint8).nbytes


def test_a_network_has_the_parameters_known_of_it(network):
    backbone, head = network
    assert parameters_nbytes(backbone) == 4 * 11_176_512
    assert round(sum(map(parameters_nbytes, network)) / MIB, 2) == 42.83
    assert parameters_nbytes(head) == 4 * 100 * 513


@pytest.mark.parametrize(("count", "mib"), [(2000, 672.6), (500, 457.3), (800, 500.3)])
def test_nine_more_networks_and_the_exemplars_take_what_the_comparison_says_of_der(
    network, count, mib
):
    nine = 9 * sum(map(parameters_nbytes, network))
    assert round((images_nbytes(count, IMAGE) + nine) / MIB, 1) == mib


def test_buffers_do_not_count_as_parameters():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert parameters_nbytes(module) == 4 * (6 + 3 + 3 + 3)


def test_what_der_counts_is_the_comparisons_figure_and_the_running_statistics(network):
    backbone, _ = network
    frozen = FrozenBackbones()
    for _ in range(9):
        frozen.add(backbone)
    statistics, counters = 4 * 9_600, 8 * 20
    assert frozen.nbytes == 9 * (parameters_nbytes(backbone) + statistics + counters)
