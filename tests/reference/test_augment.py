"""Batched augmentations against torchvision's, image by image, with the same parameters."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from harness import plugins
from harness.data import augment
from harness.data.augmentations import byol, common, simclr
from harness.data.base import Traits
from harness.data.random_views import RandomViews
from harness.errors import UserError

RGB = Traits((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), flip=True, crop_padding=4)
GRAY = Traits((0.5,), (0.2,), crop_padding=2, crop_mode="reflect")
ADJUST = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


NAMES = plugins.names("augmentation")

# github.com/lefebvju/climb, src/transforms.py: jitter, crop of small and of large images, blur.
RELEASED = {
    "simclr": ((0.6, 0.6, 0.6, 0.2), (0.2, 1.0), (0.08, 1.0), 0.2),
    "common": ((0.4, 0.4, 0.2, 0.1), (0.2, 1.0), (0.2, 1.0), 0.0),
    "simsiam": ((0.4, 0.4, 0.4, 0.1), (0.2, 1.0), (0.2, 1.0), 0.0),
    "barlow_twins": ((0.4, 0.4, 0.2, 0.1), (0.2, 1.0), (0.2, 1.0), 0.0),
    "byol": ((0.4, 0.4, 0.2, 0.1), None, None, 0.0),
}


def build(name, config, traits, image_shape):
    """The augmentation of this name; None are its default settings."""
    module = plugins.find("augmentation", name, where="test").module
    return module.build(config or module.Config(), traits, image_shape)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=16, channels=3, side=32, seed=1):
    """Smooth random images with a few saturated and a few gray ones among them."""
    coarse = torch.rand(count, channels, 6, 6, generator=seeded(seed)) * 400 - 70
    x = tv.resize(coarse, [side, side]).clamp(0, 255)
    x[0] = x[0].mean(0)
    x[1], x[2] = 0, 255
    return x.round().to(torch.uint8)


def normalized(x, traits):
    """By torchvision, of uint8 or of floats in [0, 1]."""
    x = x if x.is_floating_point() else tv.to_dtype(x, torch.float32, scale=True)
    return tv.normalize(x, list(traits.mean), list(traits.std))


def test_the_normalizer_is_torchvisions():
    x = images()
    expected = normalized(x, RGB)
    torch.testing.assert_close(augment.Normalizer(RGB)(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(augment.Normalizer(RGB)(x.float()), expected, atol=1e-5, rtol=0)


def test_the_normalizer_leaves_floats_as_they_are_and_passes_gradients():
    x = images().float().requires_grad_()
    augment.Normalizer(RGB)(x).sum().backward()
    assert torch.equal(x.detach(), images().float())
    slope = 1 / (255 * torch.tensor(RGB.std))
    torch.testing.assert_close(x.grad[0, :, 0, 0], slope)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_shift_is_a_crop_of_the_padded_image(mode, channels):
    x = images(50, channels)
    top, left = torch.randint(-4, 5, (2, 50), generator=seeded())
    mirrored = torch.rand(50, generator=seeded()) < 0.5
    for i, out in enumerate(augment.shifted(x, top, left, mirrored, mode=mode)):
        padded = tv.pad(x[i], [4], padding_mode=mode)
        expected = tv.crop(padded, int(top[i]) + 4, int(left[i]) + 4, 32, 32)
        assert torch.equal(out, tv.horizontal_flip(expected) if mirrored[i] else expected)


@pytest.mark.parametrize("size", [(32, 32), (20, 48)])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_resized_crop_is_torchvisions(size, antialias):
    height, width = size
    x = tv.resize(images(60), list(size)).float()
    boxes = augment.crop_boxes(
        torch.rand(60, 22, generator=seeded(), dtype=torch.float64),
        height=height,
        width=width,
        scale=(0.05, 1.0),
        ratio=(0.5, 2.0),
    )
    mirrored = torch.rand(60, generator=seeded()) < 0.5
    for i, out in enumerate(augment.resized_crop(x, boxes.float(), mirrored)):
        box = boxes[i].long().tolist()
        expected = tv.resized_crop(x[i], *box, size=list(size), antialias=antialias)
        expected = tv.horizontal_flip(expected) if mirrored[i] else expected
        torch.testing.assert_close(out, expected, atol=0.02, rtol=0)


def naive_box(draws, height, width, scale, ratio):
    """RandomResizedCrop.make_params of torchvision 0.24, its uniforms given."""
    areas, exponents, (u_top, u_left) = draws[:10], draws[10:20], draws[20:]
    for u_area, u_ratio in zip(areas, exponents, strict=True):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u_area)
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * u_ratio)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(u_top * (height - h + 1)), int(u_left * (width - w + 1)), h, w]
    if width / height < min(ratio):
        w, h = width, round(width / min(ratio))
    elif width / height > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((8, 8), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((20, 50), (0.9, 1.0), (3 / 4, 4 / 3)),  # often falls back to the middle
        ((50, 20), (0.9, 1.0), (3 / 4, 4 / 3)),
        ((33, 33), (1.0, 1.0), (0.4, 2.5)),
    ],
)
def test_boxes_follow_torchvisions_rule(size, scale, ratio):
    draws = torch.rand(500, 22, generator=seeded(), dtype=torch.float64)
    height, width = size
    boxes = augment.crop_boxes(draws, height=height, width=width, scale=scale, ratio=ratio)
    for box, row in zip(boxes.tolist(), draws.tolist(), strict=True):
        assert box == naive_box(row, height, width, scale, ratio)


def test_boxes_are_distributed_as_torchvisions():
    draws = torch.rand(4000, 22, generator=seeded(), dtype=torch.float64)
    settings = {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}
    boxes = augment.crop_boxes(draws, height=32, width=32, **settings)
    crop = v2.RandomResizedCrop(32, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [crop.make_params([torch.empty(3, 32, 32)]) for _ in range(2000)]
    expected = torch.tensor([[p[k] for k in ("top", "left", "height", "width")] for p in drawn])
    torch.testing.assert_close(boxes.mean(0), expected.double().mean(0), atol=0.6, rtol=0)
    torch.testing.assert_close(boxes.std(0), expected.double().std(0), atol=0.5, rtol=0)


@pytest.mark.parametrize("operation", range(4))
def test_a_colour_operation_is_torchvisions(operation):
    x = images(40)
    low, high = [(0, 2), (0, 2), (0, 2), (-0.5, 0.5)][operation]
    factors = low + (high - low) * torch.rand(40, generator=seeded())
    out = augment.JITTER[operation](x.float(), factors)
    for i in range(40):
        expected = ADJUST[operation](x[i].float() / 255, float(factors[i]))
        torch.testing.assert_close(out[i] / 255, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("turns", [-3.0, -1.0, 0.0, 1.0, 2.0])
def test_whole_turns_of_the_hue_change_nothing(turns):
    x = images(40).float()
    out = augment.hue_(x.clone(), torch.full((40,), turns))
    torch.testing.assert_close(out, x, atol=1e-3, rtol=0)


def test_a_third_of_a_turn_moves_red_to_green_and_green_to_blue():
    x = images(40).float()
    out = augment.hue_(x.clone(), torch.full((40,), 1 / 3))
    torch.testing.assert_close(out, x.roll(1, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("operation", range(2))
def test_brightness_and_contrast_of_gray_images_are_torchvisions(operation):
    x = images(20, channels=1)
    factors = 2 * torch.rand(20, generator=seeded())
    out = augment.JITTER[operation](x.float(), factors)
    for i in range(20):
        expected = ADJUST[operation](x[i].float() / 255, float(factors[i]))
        torch.testing.assert_close(out[i] / 255, expected, atol=1e-5, rtol=0)


def test_no_saturation_is_torchvisions_grayscale():
    x = images()
    out = augment.saturation_(x.float(), torch.zeros(len(x)))
    expected = tv.rgb_to_grayscale(x.float(), num_output_channels=3)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


def test_blur_is_torchvisions():
    x = images(10).float()
    sigma = 0.1 + 1.9 * torch.rand(10, generator=seeded())
    out = augment.blur(x, augment.gaussian_taps(sigma, 5))
    for i in range(10):
        expected = tv.gaussian_blur(x[i], [5, 5], [float(sigma[i])])
        torch.testing.assert_close(out[i], expected, atol=1e-3, rtol=0)


def naive_view(image, row, order, released, *, flip):
    """One view of a uint8 image (3, S, S) by torchvision, its 31 uniforms and the order given."""
    jitter, small, large, blur = released
    side = image.shape[-1]
    scale = small if side <= 64 else large
    flipped, jittered, *strengths, gray, blurred, sigma = row[22:]
    image = image.float() / 255
    if scale:
        box = naive_box(row[:22], side, side, scale, (3 / 4, 4 / 3))
        image = tv.resized_crop(image, *box, [side, side], antialias=True)
    image = tv.horizontal_flip(image) if flip and flipped < 0.5 else image
    for operation in order if jittered < 0.8 else ():
        middle, strength = (1, 1, 1, 0)[operation], jitter[operation]
        image = ADJUST[operation](image, middle + strength * (2 * strengths[operation] - 1))
    image = tv.rgb_to_grayscale(image, 3) if gray < 0.2 else image
    if side > 64 and blurred < blur:
        image = tv.gaussian_blur(image, [5, 5], [0.1 + 1.9 * sigma])
    return image


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize(("side", "flip"), [(32, True), (64, True), (80, False)])
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_set_is_torchvisions_operations_one_after_the_other(
    name, side, flip, per_sample
):
    x, traits = images(16, side=side), Traits(RGB.mean, RGB.std, flip=flip)
    module = plugins.find("augmentation", name, where="test").module
    views = module.build(module.Config(aug_per_sample=per_sample), traits, (3, side, side))
    out, rng = views(x, seeded(3)), seeded(3)
    rows = torch.rand(16 if per_sample else 1, 31, generator=rng, dtype=torch.float64).tolist()
    order = torch.randperm(4, generator=rng).tolist()
    for i, row in enumerate(rows if per_sample else rows * 16):
        view = naive_view(x[i], row, order, RELEASED[name], flip=flip)
        difference = (out[i] - normalized(view, traits)).abs() * min(RGB.std)
        assert difference.max() < 1 / 255
        assert difference.mean() < 1e-4


def test_every_set_of_random_views_is_compared_with_what_was_released():
    built = {name for name in NAMES if isinstance(build(name, None, RGB, (3, 8, 8)), RandomViews)}
    assert built == {*RELEASED, "resized_crop"}  # which is not for self-supervision


@pytest.mark.parametrize("side", [32, 80])
@pytest.mark.parametrize("name", RELEASED)
def test_one_set_of_parameters_for_a_batch_is_what_every_image_alone_would_get(name, side):
    config = plugins.find("augmentation", name, where="test").config(aug_per_sample=False)
    x, views = images(6, side=side), build(name, config, RGB, (3, side, side))
    alone = torch.cat(
        [build(name, None, RGB, (3, side, side))(one, seeded(4)) for one in x.split(1)]
    )
    torch.testing.assert_close(views(x, seeded(4)), alone, atol=1e-4, rtol=0)


def test_parameters_of_a_batch_change_from_call_to_call():
    views, rng = simclr.build(simclr.Config(aug_per_sample=False), RGB, (3, 32, 32)), seeded()
    x = images()[3:4].repeat(5, 1, 1, 1)
    calls = torch.stack([views(x, rng) for _ in range(20)])
    torch.testing.assert_close(calls, calls[:, :1].expand_as(calls), atol=1e-4, rtol=0)
    assert len(calls[:, 0].flatten(1).unique(dim=0)) == 20


def agree(out, expected):
    """Which images (B, C, H, W) are the same up to rounding, (B,)."""
    return ((out - expected).abs() < 1e-4).flatten(1).all(1)


def test_a_batch_is_jittered_and_mirrored_as_often_as_an_image():
    config = byol.Config(aug_per_sample=False, jitter_probability=0.3, gray_probability=0.0)
    views, rng = byol.build(config, RGB, (3, 8, 8)), seeded()
    x = images(4, side=8)[3:]
    calls, plain = torch.cat([views(x, rng) for _ in range(2000)]), augment.Normalizer(RGB)(x)
    assert not agree(plain, plain.flip(-1))
    assert abs(float(agree(calls, plain).double().mean()) - 0.7 / 2) < 0.04
    assert abs(float(agree(calls, plain.flip(-1)).double().mean()) - 0.7 / 2) < 0.04


def test_byol_moves_no_pixel_but_to_its_mirror_image():
    config = byol.Config(jitter_probability=0.0, gray_probability=0.0)
    x = images(64)[3:]
    out, plain = byol.build(config, RGB, (3, 32, 32))(x, seeded()), augment.Normalizer(RGB)(x)
    mirrored = agree(out, plain.flip(-1))
    assert (agree(out, plain) ^ mirrored).all()
    assert 20 < int(mirrored.sum()) < 41
    unflipped = byol.build(config, Traits(RGB.mean, RGB.std), (3, 32, 32))(x, seeded())
    assert agree(unflipped, plain).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jitter": [0.4, 0.4, -0.1, 0.1]}, "jitter"),
        ({"jitter": [0.4, 0.4, 0.4, 0.6]}, "hue at most 0.5"),
        ({"gray_probability": 1.2}, "gray_probability"),
        ({"blur_kernel": 4}, "odd"),
        ({"scale": [0.9, 0.2]}, "scale"),
        ({"ratio": [0.0, 1.0]}, "ratio"),
    ],
)
def test_settings_that_make_no_view_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        plugins.component("augmentation", "common", settings, where="test")


def test_standard_is_torchvisions_operations_one_after_the_other():
    x = images()
    out = build("standard", None, RGB, (3, 32, 32))(x, seeded(3))
    draws = torch.rand(len(x), 3, generator=seeded(3), dtype=torch.float64).tolist()
    for i, (top, left, flipped) in enumerate(draws):
        image = tv.crop(tv.pad(x[i], [4]), int(9 * top), int(9 * left), 32, 32)
        image = tv.horizontal_flip(image) if flipped < 0.5 else image
        torch.testing.assert_close(out[i], normalized(image, RGB), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["none", "standard"])
def test_what_declares_nothing_is_only_normalized(name):
    traits, rng = Traits((0.3,), (0.4,)), seeded()
    x = images(8, channels=1, side=8)
    out = build(name, None, traits, (1, 8, 8))(x, rng)
    assert torch.equal(out, augment.Normalizer(traits)(x))
    assert torch.equal(rng.get_state(), seeded().get_state())


def test_colour_operations_are_the_identity_on_gray_images():
    x = images(32, channels=1)
    settings = {"gray_probability": 1.0, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    config = common.Config(jitter=(0.0, 0.0, 0.4, 0.5), **settings)
    out = common.build(config, GRAY, (1, 32, 32))(x, seeded())
    torch.testing.assert_close(out, augment.Normalizer(GRAY)(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("traits", "channels"), [(RGB, 3), (GRAY, 1)])
class TestEverySet:
    def test_gives_normalized_floats_of_the_same_shape(self, name, traits, channels):
        x = images(channels=channels)
        out = build(name, None, traits, x.shape[1:])(x, seeded())
        assert out.dtype == torch.float32
        assert out.shape == x.shape
        assert out.is_contiguous()
        black, white = -max(traits.mean) / min(traits.std), (1 - min(traits.mean)) / min(traits.std)
        assert black - 1e-3 <= out.min()
        assert out.max() <= white + 1e-3

    def test_depends_on_the_generator_alone(self, name, traits, channels):
        x = images(channels=channels)
        views = build(name, None, traits, x.shape[1:])
        state, kept = torch.random.get_rng_state(), x.clone()
        first, second = views(x, seeded(5)), views(x, seeded(5))
        assert torch.equal(first, second)
        assert torch.equal(first, views(x, seeded(6))) == (name == "none")
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(x, kept)

    @pytest.mark.parametrize("count", [0, 1])
    def test_takes_small_batches(self, name, traits, channels, count):
        x = images(channels=channels)[:count]
        assert build(name, None, traits, x.shape[1:])(x, seeded()).shape == x.shape


@pytest.mark.parametrize(
    ("name", "least"),
    # byol leaves an image as it is or mirrors it where it jitters not, one time in five.
    [("standard", 60), ("byol", 60), *((name, 100) for name in RELEASED if name != "byol")],
)
def test_every_image_has_parameters_of_its_own(name, least):
    x = images()[3:4].repeat(100, 1, 1, 1)
    out = build(name, None, RGB, (3, 32, 32))(x, seeded())
    assert len(out.flatten(1).unique(dim=0)) >= least


def test_factors_are_drawn_as_configured():
    views = simclr.build(simclr.Config(), RGB, (3, 32, 32))
    draws = torch.rand(20_000, 8, generator=seeded(), dtype=torch.float64)
    *jitter, kept = views._factors(draws)
    strengths, neutral = torch.tensor(simclr.Config().jitter), torch.tensor([1, 1, 1, 0])
    changed = torch.stack(jitter, 1) != neutral
    assert torch.equal(changed.all(1), changed.any(1))  # an image has all four or none
    assert abs(float(changed[:, 0].float().mean()) - 0.8) < 0.02
    assert abs(float(kept.mean()) - 0.8) < 0.02
    drawn = torch.stack(jitter, 1)[changed[:, 0]] - neutral
    uniform = drawn / strengths  # in (-1, 1), standard deviation 1 / sqrt(3)
    assert uniform.abs().max() <= 1
    torch.testing.assert_close(uniform.mean(0), torch.zeros(4).double(), atol=0.02, rtol=0)
    expected = torch.full((4,), 3**-0.5).double()
    torch.testing.assert_close(uniform.std(0), expected, atol=0.02, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_makes_the_same_views_and_is_not_waited_for(name):
    x = images()
    views = build(name, None, RGB, (3, 32, 32))
    expected, there = views(x, seeded()), x.cuda()
    views(there, seeded())  # the constants of the normalizer move to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = views(there, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), expected, atol=1e-2, rtol=0)
