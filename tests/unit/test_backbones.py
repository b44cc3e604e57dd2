"""Backbones: features of every image size, published numbers of parameters, clear refusals."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import plugins
from harness.errors import UserError
from methods import registry
from methods.parts.resnets import resnet18_of_width

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
BACKBONES = registry.names(registry.BACKBONES)
BIG = ("resnet34", "resnet50", "wide_resnet18")  # slow to fill with random weights
SMALL = [name for name in BACKBONES if name not in BIG]


def build(name, image_shape, **settings):
    return plugins.build(
        "backbone", plugins.component("backbone", name, settings, where="tests"), image_shape
    )


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_gives_a_row_of_features_an_image(name, shape):
    net = build(name, shape).eval()
    with torch.no_grad():
        features = net(torch.randn(2, *shape))
    assert features.shape == (2, net.feature_dim)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, (3, 32, 32)) for name in SMALL] + [(name, shape) for name in BIG for shape in SHAPES],
    ids=str,
)
def test_every_backbone_can_be_planned_without_memory(name, shape):
    with torch.device("meta"):
        net = build(name, shape)
        features = net(torch.randn(2, *shape))
    assert all(tensor.is_meta for tensor in net.state_dict().values())
    assert features.shape == (2, net.feature_dim)


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_every_parameter(name):
    with torch.device("meta" if name in BIG else "cpu"):
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
    ("name", "dim", "published"),  # docs.pytorch.org/vision, with the head of 1000 classes
    [("resnet34", 512, 21_797_672), ("resnet50", 2048, 25_557_032)],
)
def test_deeper_resnets_have_torchvision_s_parameters_but_for_head_and_stem(name, dim, published):
    headless = published - 1000 * dim - 1000
    with torch.device("meta"):
        large, small = build(name, (3, 224, 224)), build(name, (3, 32, 32))
    assert large.feature_dim == small.feature_dim == dim
    assert parameters(large) == headless
    assert parameters(small) == headless - 64 * 3 * (7 * 7 - 3 * 3)
    assert [
        len([m for m in n.modules() if isinstance(m, nn.MaxPool2d)]) for n in (large, small)
    ] == [
        1,
        0,
    ]


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("name", "last"), [("resnet34", "bn2.weight"), ("resnet50", "bn3.weight")])
def test_residual_branches_of_deeper_resnets_start_at_zero_if_asked(name, last, zero):
    net = build(name, (3, 8, 8), zero_init_residual=zero).eval()
    ends = [w for key, w in net.state_dict().items() if key.endswith(last)]
    assert len(ends) == 3 + 4 + 6 + 3
    assert all(bool((weight == 0).all()) == zero for weight in ends)
    with torch.no_grad():
        assert net(torch.randn(2, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("name", "width"), [("slim_resnet18", 20), ("wide_resnet18", 128)])
def test_a_resnet18_of_another_width_has_torchvision_s_shape(name, width):
    convolution = (3 * 9 + 4 * 9 * width) * width  # stem and first stage
    for stage in range(1, 4):  # the first of four 3x3 and the shortcut see half the channels
        convolution += (9 * (1 / 2 + 3) + 1 / 2) * (width * 2**stage) ** 2
    scales = 2 * width * (5 + 5 * (2 + 4 + 8))
    with torch.device("meta"):
        small, large = build(name, (3, 32, 32)), build(name, (1, 224, 224))
    assert small.feature_dim == large.feature_dim == 8 * width
    assert parameters(small) == convolution + scales
    assert parameters(large) == convolution + scales + (1 * 49 - 3 * 9) * width


def test_the_wide_resnet18_has_twice_the_channels_of_resnet18():
    with torch.device("meta"):
        shape = [tuple(w.shape) for w in build("wide_resnet18", (3, 32, 32)).state_dict().values()]
        base = [tuple(w.shape) for w in build("resnet18", (3, 32, 32)).state_dict().values()]
    halved = [tuple(n // 2 if n > 3 else n for n in one) for one in shape]
    assert halved == base


@pytest.mark.parametrize("side", [32, 80])
def test_a_resnet18_by_width_computes_what_torchvision_s_does(side):
    theirs = build("resnet18", (3, side, side), zero_init_residual=False).eval()
    ours = resnet18_of_width(64, (3, side, side), zero_init_residual=False).eval()
    theirs_state, ours_state = theirs.state_dict(), ours.state_dict()
    assert len(theirs_state) == len(ours_state)
    pairs = zip(ours_state, theirs_state.values(), strict=True)
    ours.load_state_dict({key: torch.rand_like(w) if w.ndim == 1 else w for key, w in pairs})
    theirs.load_state_dict(dict(zip(theirs_state, ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("zero", [True, False])
def test_the_slim_resnet18_starts_from_weights_scaled_by_its_outputs(zero):
    net = build("slim_resnet18", (3, 32, 32), zero_init_residual=zero)
    for convolution in convolutions(net):
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        spread = float(convolution.weight.detach().std()) / math.sqrt(2 / fan_out)
        assert abs(spread - 1) < 4 / math.sqrt(2 * convolution.weight.numel())
    ends = [w for key, w in net.state_dict().items() if key.endswith("bn2.weight")]
    assert len(ends) == 8
    assert all(bool((weight == 0).all()) == zero for weight in ends)


@pytest.mark.parametrize("width", [64, 128, 20])
def test_resnet9_has_the_known_size(width):
    with torch.device("meta"):
        net = build("resnet9", (3, 32, 32), width=width)
    assert net.feature_dim == 8 * width
    widths = [3, *(k * width for k in (1, 2, 2, 2, 4, 8, 8, 8))]
    kernels = sum(9 * before * after for before, after in itertools.pairwise(widths))
    assert parameters(net) == kernels + 3 * sum(widths[1:])  # biases and two values of each norm
    if width == 64:
        # The usual ResNet-9 for CIFAR-10, with its head of 512 * 10 + 10.
        assert parameters(net) == 6_575_370 - 5_130


def test_resnet9_adds_its_two_residual_pairs_and_takes_the_maximum():
    net = build("resnet9", (3, 16, 16), width=4).eval()
    assert [m.out_channels for m in convolutions(net)] == [4, 8, 8, 8, 16, 32, 32, 32]
    stages = iter(m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))

    def block(x, pool=False):
        x = next(stages)(x)
        x = F.relu(next(stages)(x))
        return F.max_pool2d(x, 2) if pool else x

    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        h = block(block(x), pool=True)
        h = block(block(h)) + h
        h = block(block(h, pool=True), pool=True)
        h = block(block(h)) + h
        torch.testing.assert_close(net(x), h.flatten(2).max(2).values)


@pytest.mark.parametrize(
    ("width", "count"), [(64, 11_168_832), (32, 2_795_040), (20, 1_093_140), (16, 700_176)]
)
def test_a_slim_resnet18_has_the_known_size(width, count):
    net = build("resnet_small", (3, 32, 32), width=width, blocks=[2, 2, 2, 2])
    assert net.feature_dim == 8 * width
    assert parameters(net) == count


def test_a_slim_resnet_halves_the_image_at_every_stage_but_the_first():
    net = build("resnet_small", (3, 32, 32), width=4, blocks=[2, 1, 1])
    assert shapes_between_stages(net, 32) == [(4, 32), (8, 16), (16, 8)]
    assert [len(stage) for stage in net.stages] == [2, 1, 1]


def shapes_between_stages(net, side):
    """Channels and side of the map behind each stage, checked against what the net declares."""
    x, found = net.stem(torch.randn(2, 3, side, side)), []
    for stage in net.stages:
        x = stage(x)
        found.append((x.shape[1], x.shape[-1]))
    assert tuple(channels for channels, _ in found) == net.stage_channels
    assert net.pool(x).shape == (2, net.feature_dim)
    return found


@pytest.mark.parametrize("name", ["mammoth_resnet18", "resnet18", "wide_resnet18", "resnet50"])
def test_a_resnet_keeps_a_small_image_and_halves_it_in_three_of_four_stages(name):
    for side in (32, 64):
        sides = [size for _, size in shapes_between_stages(build(name, (3, side, side)), side)]
        assert sides == [side, side // 2, side // 4, side // 8]


# EDD's appendix gives Mammoth's network; GEM's reduced one has 20 channels.
@pytest.mark.parametrize(
    ("width", "count"), [(64, 11_168_832), (20, 1_093_140), (16, 700_176), (32, 2_795_040)]
)
def test_mammoth_s_resnet18_has_the_published_number_of_parameters(width, count):
    net = build("mammoth_resnet18", (3, 32, 32), width=width)
    assert parameters(net) == count
    assert net.feature_dim == 8 * width
    heads = {10: 11_173_962, 100: 11_220_132, 200: 11_271_432}
    if width == 64:
        for classes, total in heads.items():
            assert count + parameters(nn.Linear(net.feature_dim, classes)) == total


def test_an_mlp_has_the_layers_it_is_told():
    net = build("mlp", (1, 8, 8), hidden=[30, 20])
    assert net.feature_dim == 20
    assert parameters(net) == 64 * 30 + 30 + 30 * 20 + 20


def test_a_cnn_halves_the_image_between_its_layers():
    net = build("cnn", (3, 32, 32), widths=[4, 8, 16])
    assert net.feature_dim == 16
    assert parameters(net) == 9 * (3 * 4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16)
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 2


VIT = {"dim": 12, "depth": 2, "heads": 3}


def vit(shape=(3, 8, 8), **settings):
    torch.manual_seed(0)
    net = build("vit_tiny", shape, **(VIT | settings)).eval()
    for parameter in net.parameters():  # so that no bias is 0 and no scale 1
        nn.init.normal_(parameter, std=0.5)
    return net


def naive_tokens(net, x, numbers):
    """The class token and the patches of these numbers of one image (C, H, W), from the weights."""
    w = {key.removeprefix("net."): value for key, value in net.state_dict().items()}
    side, heads = net.patch_size, VIT["heads"]
    rows = []
    for number in numbers:
        row, column = divmod(number, x.shape[2] // side)
        patch = x[:, row * side :, column * side :][:, :side, :side]
        value = (w["patch_embed.proj.weight"] * patch).sum((1, 2, 3)) + w["patch_embed.proj.bias"]
        rows.append(value + w["pos_embed"][0, number])
    t = torch.stack([w["cls_token"][0, 0], *rows])
    for i in range(VIT["depth"]):
        b = {
            k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}.")
        }
        h = F.layer_norm(t, t.shape[1:], b["norm1.weight"], b["norm1.bias"])
        q, k, v = (h @ b["attn.qkv.weight"].T).chunk(3, 1)
        mixed = [
            ((one_q @ one_k.T) / math.sqrt(one_q.shape[1])).softmax(1) @ one_v
            for one_q, one_k, one_v in zip(*(m.chunk(heads, 1) for m in (q, k, v)), strict=True)
        ]
        t = t + torch.cat(mixed, 1) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        h = F.layer_norm(t, t.shape[1:], b["norm2.weight"], b["norm2.bias"])
        h = F.gelu(h @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"])
        t = t + h @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
    return F.layer_norm(t, t.shape[1:], w["norm.weight"], w["norm.bias"])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 10)], ids=str)
@torch.no_grad()
def test_the_tokens_of_a_vit_are_those_of_a_naive_transformer(shape):
    net, x = vit(shape), torch.randn(2, *shape)
    tokens = net.encode(x)
    assert net.num_patches == shape[1] * shape[2] // 4
    assert tokens.shape == (2, 1 + net.num_patches, 12)
    for one, found in zip(x, tokens, strict=True):
        torch.testing.assert_close(found, naive_tokens(net, one, range(net.num_patches)))
    torch.testing.assert_close(net(x), tokens[:, 0])


@torch.no_grad()
def test_a_vit_encodes_the_patches_it_is_told_and_no_others():
    net, x = vit(), torch.randn(2, 3, 8, 8)
    keep = torch.tensor([[3, 0, 15], [7, 8, 1]])
    tokens = net.encode(x, keep)
    assert tokens.shape == (2, 4, 12)
    for one, numbers, found in zip(x, keep.tolist(), tokens, strict=True):
        torch.testing.assert_close(found, naive_tokens(net, one, numbers))
    x[0, :, 2:4] += 1  # the patches 4 to 7: kept of the second image alone
    x[1, :, 2:4] += 1
    changed = net.encode(x, keep)
    assert torch.equal(changed[0], tokens[0])
    assert not torch.allclose(changed[1], tokens[1], atol=1e-2)


@torch.no_grad()
def test_patches_in_another_order_give_the_same_tokens_in_that_order():
    net, x = vit(), torch.randn(3, 3, 8, 8)
    keep = torch.stack([torch.randperm(16) for _ in range(3)])
    tokens, shuffled = net.encode(x), net.encode(x, keep)
    torch.testing.assert_close(shuffled[:, 0], tokens[:, 0])
    torch.testing.assert_close(
        shuffled[:, 1:], torch.stack([t[1:][k] for t, k in zip(tokens, keep, strict=True)])
    )


@torch.no_grad()
def test_a_vit_without_patches_encodes_its_class_token_alone():
    net, x = vit(), torch.randn(2, 3, 8, 8)
    tokens = net.encode(x, torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(tokens[0], naive_tokens(net, x[0], []))


@torch.no_grad()
def test_features_of_a_vit_are_its_class_token_or_the_mean_of_all():
    x = torch.randn(2, 3, 8, 8)
    first, mean = vit(pooling="cls"), vit(pooling="mean")
    tokens = first.encode(x)
    assert torch.equal(first(x), tokens[:, 0])
    torch.testing.assert_close(mean(x), tokens.mean(1))


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((1, 8, 8), 2),
        ((1, 28, 28), 2),
        ((3, 32, 32), 2),
        ((3, 64, 64), 4),
        ((3, 224, 224), 16),
        ((3, 256, 256), 16),
    ],
)
def test_vit_tiny_has_the_known_size_and_patches_that_suit_the_image(shape, patch):
    with torch.device("meta"):
        net = build("vit_tiny", shape)
    channels, side, _ = shape
    assert (net.patch_size, net.image_shape, net.feature_dim) == (patch, shape, 192)
    assert net.num_patches == (side // patch) ** 2
    block = 192 * 3 * 192 + (192 + 1) * 192 + (192 + 1) * 768 + (768 + 1) * 192 + 2 * 2 * 192
    embedding = (channels * patch**2 + 1) * 192 + 192 + net.num_patches * 192
    assert parameters(net) == 12 * block + embedding + 2 * 192
    # 5,717,416 is DeiT-Ti with a head of 1000 classes, a position of the class token and biases.
    if side == 224:
        assert parameters(net) == 5_717_416 - 1000 * 193 - 192 - 12 * 3 * 192


def test_vit_tiny_starts_from_truncated_normals():
    net = build("vit_tiny", (3, 32, 32), depth=1)
    state = net.state_dict()
    drawn = ["pos_embed", "cls_token", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"]
    for key in (f"net.{key}" for key in drawn):
        weight = state[key]
        spread = float(weight.std()) / 0.02
        assert abs(spread - 1) < 5 / math.sqrt(2 * weight.numel()), key
    assert not state["net.blocks.0.attn.proj.bias"].any()


@pytest.mark.parametrize(("shape", "patch"), [((3, 100, 100), 16), ((1, 7, 8), 2), ((1, 8, 7), 2)])
def test_a_vit_refuses_images_that_its_patches_do_not_divide(shape, patch):
    message = f"patches of {patch} pixels do not divide {shape[1]}x{shape[2]} images"
    with pytest.raises(UserError, match=message):
        build("vit_tiny", shape, **VIT)
    net = build("vit_tiny", shape, patch_size=1 if shape[1] < 9 else 20, **VIT)
    assert net(torch.randn(2, *shape)).shape == (2, 12)


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
        ("resnet9", {"width": 0}),
        ("vit_tiny", {"dim": 16}),  # three heads
        ("vit_tiny", {"depth": 0}),
        ("vit_tiny", {"heads": 0}),
        ("vit_tiny", {"patch_size": 0}),
        ("vit_tiny", {"patch_size": -2}),
        ("vit_tiny", {"patch_size": 16}),
        ("vit_tiny", {"pooling": "max"}),
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
