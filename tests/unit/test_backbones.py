"""Backbones: features of every image size, published numbers of parameters, clear refusals."""

import pytest
import torch
from torch import nn

from harness import plugins
from harness.errors import UserError
from methods import registry

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
BACKBONES = registry.names(registry.BACKBONES)


def build(name, image_shape, **settings):
    return plugins.build(
        "backbone", plugins.component("backbone", name, settings, where="tests"), image_shape
    )


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_a_row_of_features_an_image(name, shape):
    net = build(name, shape).eval()
    with torch.no_grad():
        features = net(torch.randn(2, *shape))
    assert features.shape == (2, net.feature_dim)
    assert features.isfinite().all()


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_every_parameter(name):
    net = build(name, (3, 32, 32))
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("side", [32, 64])
def test_resnet18_for_small_images_has_the_known_size_and_a_stem_without_pooling(side):
    net = build("resnet18", (3, side, side))
    assert net.feature_dim == 512
    assert parameters(net) == 11_168_832
    stem = convolutions(net)[0]
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == (
        (3, 3),
        (1, 1),
        (1, 1),
        None,
    )
    assert not [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]


def test_resnet18_for_large_images_keeps_torchvision_s_stem():
    net = build("resnet18", (3, 224, 224))
    stem = convolutions(net)[0]
    assert (stem.kernel_size, stem.stride, stem.padding) == ((7, 7), (2, 2), (3, 3))
    assert len([m for m in net.modules() if isinstance(m, nn.MaxPool2d)]) == 1
    assert parameters(net) == 11_176_512  # 11,689,512 with torchvision's head of 1000 classes


def test_resnet18_takes_large_grey_images():
    net = build("resnet18", (1, 96, 96)).eval()
    assert convolutions(net)[0].kernel_size == (7, 7)
    with torch.no_grad():
        assert net(torch.randn(1, 1, 96, 96)).shape == (1, 512)


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_of_resnet18_start_at_zero_if_asked(zero):
    net = build("resnet18", (3, 32, 32), zero_init_residual=zero)
    last = [w for key, w in net.state_dict().items() if key.endswith("bn2.weight")]
    assert len(last) == 8
    assert all(bool((weight == 0).all()) == zero for weight in last)


@pytest.mark.parametrize(
    ("width", "count"), [(64, 11_168_832), (32, 2_795_040), (20, 1_093_140), (16, 700_176)]
)
def test_a_slim_resnet18_has_the_known_size(width, count):
    net = build("resnet_small", (3, 32, 32), width=width, blocks=[2, 2, 2, 2])
    assert net.feature_dim == 8 * width
    assert parameters(net) == count


def test_a_slim_resnet_halves_the_image_at_every_stage_but_the_first():
    net = build("resnet_small", (3, 32, 32), width=4, blocks=[2, 1, 1])
    stages = [m for m in net.layers if hasattr(m, "downsample")]
    sides, x = [], torch.randn(1, 3, 32, 32)
    for layer in net.layers:
        x = layer(x)
        if layer in stages:
            sides.append((x.shape[1], x.shape[-1]))
    assert sides == [(4, 32), (4, 32), (8, 16), (16, 8)]


def test_an_mlp_has_the_layers_it_is_told():
    net = build("mlp", (1, 8, 8), hidden=[30, 20])
    assert net.feature_dim == 20
    assert parameters(net) == 64 * 30 + 30 + 30 * 20 + 20


def test_a_cnn_halves_the_image_between_its_layers():
    net = build("cnn", (3, 32, 32), widths=[4, 8, 16])
    assert net.feature_dim == 16
    assert parameters(net) == 9 * (3 * 4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16)
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {"hidden": []}),
        ("mlp", {"hidden": [8, 0]}),
        ("mlp", {"hidden": [-8]}),
        ("cnn", {"widths": []}),
        ("cnn", {"widths": [0]}),
        ("cnn", {"widths": [8, -8]}),
        ("cnn", {"widths": [8] * 5}),  # 8x8 images cannot be halved four times
        ("resnet_small", {"width": 0}),
        ("resnet_small", {"width": -4}),
        ("resnet_small", {"blocks": []}),
        ("resnet_small", {"blocks": [1, 0]}),
        ("resnet_small", {"blocks": [-1]}),
    ],
)
def test_settings_that_make_no_network_are_refused_by_name(name, settings):
    with pytest.raises(UserError, match=f"backbone {name}"):
        build(name, (1, 8, 8), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": [8]}, "did you mean 'hidden'"),
        ({"hidden": 8}, "hidden"),
        ({"hidden": ["8"]}, "hidden"),
        ({"hidden": [8.0]}, "hidden"),
    ],
)
def test_settings_of_the_wrong_name_or_type_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build("mlp", (1, 8, 8), **settings)


def test_an_unknown_backbone_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build("resnet-18", (3, 32, 32))
