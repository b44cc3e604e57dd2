"""The corruptions against their definitions, other libraries, and the order of their severities."""

import colorsys
import gzip
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import correlate1d, map_coordinates
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional as F

from harness.data.corruptions import blur, digital, pixels, weather
from harness.data.corruptions.registry import CORRUPTIONS

NAMES = [
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
]
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def corrupted(name, x, severity, seed=0):
    return CORRUPTIONS[name](x, severity, rng(seed))


def random_images(*shape):
    return torch.randint(0, 256, shape, generator=rng(), dtype=torch.uint8)


@cache
def photos(count, side, span):
    """Random squares of two photographs, `span` times as wide, shrunk; uint8 (N, 3, S, S)."""
    draws, squares = rng(1), []
    pictures = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in load_sample_images().images]
    for i in range(count):
        picture, wide = pictures[i % 2], int(span * side)
        top, left = (
            int(torch.randint(0, n - wide + 1, (), generator=draws)) for n in picture.shape[1:]
        )
        square = picture[None, :, top : top + wide, left : left + wide].float()
        squares.append(F.interpolate(square, (side, side), mode="bilinear", antialias=True))
    return torch.cat(squares).round().byte()


def gray_photos():
    return photos(300, 28, 4).float().mean(1, keepdim=True).byte()


def drawings():
    """Gray 28x28: clothes, or where they are not at hand, digits."""
    if FASHION.exists():
        raw = np.frombuffer(gzip.decompress(FASHION.read_bytes()), np.uint8, offset=16)
        return torch.from_numpy(raw.reshape(-1, 1, 28, 28)[:300].copy())
    x = torch.from_numpy(load_digits().images[:300]).float()[:, None] * (255 / 16)
    return F.interpolate(x, (28, 28), mode="bicubic").clamp(0, 255).byte()


def digits():
    x = torch.from_numpy(load_digits().images[:300]).float()[:, None] * (255 / 16)
    return F.interpolate(x, (28, 28), mode="bicubic").clamp(0, 255).byte()


IMAGES = {
    "gray photos of 28 pixels": gray_photos,
    "drawings of 28 pixels": drawings,
    "digits of 28 pixels": digits,
    "photos of 32 pixels": lambda: photos(300, 32, 4),
    "photos of 64 pixels": lambda: photos(120, 64, 3),
}


def errors(name, x):
    """Mean squared error of each severity."""
    found = [corrupted(name, x, severity, seed=5).float() - x.float() for severity in range(1, 6)]
    return [difference.square().mean().item() for difference in found]


def test_the_corruptions_are_those_of_the_paper_in_its_order():
    assert list(CORRUPTIONS) == NAMES
    assert [CORRUPTIONS[name].__name__ for name in NAMES] == NAMES


@pytest.mark.parametrize("images", IMAGES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_severity_changes_small_images_more_than_the_one_before(name, images):
    found = errors(name, IMAGES[images]())
    assert found[0] > 0.1
    assert all(low < high for low, high in pairwise(found)), found


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"elastic_transform", "snow", "fog"}))
def test_so_it_is_at_the_size_of_the_paper_with_its_parameters(name):
    found = errors(name, photos(6, 224, 1.5))
    assert all(low < high for low, high in pairwise(found)), found


def test_the_published_warps_of_large_images_are_milder_than_the_maps_before_them():
    first, second, *warps = errors("elastic_transform", photos(6, 224, 1.5))
    assert max(warps) < first < second
    assert warps == sorted(warps)


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 3, 9, 14), (2, 4, 28, 20), (1, 3, 130, 128)])
@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_the_given_images_stay(name, shape):
    x = random_images(*shape)
    before = x.clone()
    for severity in (1, 5):
        found = corrupted(name, x, severity)
        assert (found.shape, found.dtype) == (x.shape, torch.uint8)
        assert not torch.equal(found, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_draws_come_from_the_generator_alone(name):
    x = random_images(4, 3, 28, 28)
    before = torch.get_rng_state()
    first, again, other = (corrupted(name, x, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in FIXED)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"shot_noise", "jpeg_compression"}))
def test_images_stay_on_their_device(name):
    """The meta device refuses what mixes it with the CPU; the two left out need values there."""
    for side in (28, 130):
        x = torch.zeros(2, 3, side, side, dtype=torch.uint8, device="meta")
        assert corrupted(name, x, 5).device == x.device


@pytest.mark.parametrize("name", sorted(FIXED))
def test_what_draws_nothing_treats_every_image_by_itself(name):
    x = random_images(4, 3, 28, 28)
    alone = torch.cat([corrupted(name, x[i : i + 1], 4) for i in range(4)])
    assert (corrupted(name, x, 4).int() - alone.int()).abs().max() <= 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - FIXED))
def test_every_image_has_draws_of_its_own(name):
    x = random_images(1, 1, 28, 28).repeat(3, 1, 1, 1)
    one, two, three = corrupted(name, x, 3)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


@pytest.mark.parametrize("name", NAMES)
def test_no_images_are_no_images(name):
    assert corrupted(name, random_images(0, 3, 28, 28), 2).shape == (0, 3, 28, 28)


@pytest.mark.parametrize("severity", [0, 6])
def test_other_severities_are_refused(severity):
    with pytest.raises(ValueError, match=f"severity is a number from 1 to 5, got {severity}"):
        corrupted("fog", random_images(1, 1, 28, 28), severity)


def test_tiny_images_are_refused():
    with pytest.raises(ValueError, match="need 8 pixels a side, got 7x28"):
        corrupted("fog", random_images(1, 1, 7, 28), 1)


def level(value, count=8, side=64):
    return torch.full((count, 1, side, side), value, dtype=torch.uint8)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.08), (2, 0.12), (3, 0.18)])
def test_gaussian_noise_has_its_deviation_and_no_bias(severity, sigma):
    noise = corrupted("gaussian_noise", level(128), severity).float() / 255 - 128 / 255
    assert noise.std().item() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean().item()) < 0.003


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (2, 25), (3, 12)])
def test_shot_noise_has_the_mean_and_variance_of_its_photons(severity, photons):
    value = 51 / 255
    found = corrupted("shot_noise", level(51), severity).float() / 255
    assert found.mean().item() == pytest.approx(value, rel=0.02)
    assert found.var().item() == pytest.approx(value / photons, rel=0.04)
    assert not corrupted("shot_noise", level(0), severity).any()


@pytest.mark.parametrize(
    ("severity", "share"), [(1, 0.03), (2, 0.06), (3, 0.09), (4, 0.17), (5, 0.27)]
)
def test_impulses_are_half_salt_half_pepper_and_leave_the_rest(severity, share):
    found = corrupted("impulse_noise", level(128, count=32), severity)
    salt, pepper = (found == 255).float().mean().item(), (found == 0).float().mean().item()
    assert [salt, pepper] == pytest.approx([share / 2, share / 2], rel=0.05)
    assert set(found.unique().tolist()) == {0, 128, 255}


@pytest.mark.parametrize("radius", [0.375, 1.25, 3.0])
def test_the_disc_is_the_mean_of_a_bilinear_image_over_it(radius):
    image = np.random.default_rng(0).random((15, 15))
    angle, distance = np.random.default_rng(1).random((2, 400_000))
    points = radius * np.sqrt(distance) * np.stack([np.cos(2 * np.pi * angle)] * 2)
    points[1] = radius * np.sqrt(distance) * np.sin(2 * np.pi * angle)
    expected = map_coordinates(image, 7 + points, order=1).mean()
    kernel = blur.disc(radius).numpy()
    half = len(kernel) // 2
    middle = image[7 - half : 8 + half, 7 - half : 8 + half]
    assert (middle * kernel).sum() == pytest.approx(expected, abs=2e-3)


def test_glass_moves_pixels_and_loses_none():
    x = torch.arange(15.0 * 17).view(1, 1, 15, 17).repeat(3, 2, 1, 1)
    for reach in (1, 2, 3):
        found = blur._shuffled(x, reach, 1.0, rng())
        assert torch.equal(found.flatten(2).sort().values, x.flatten(2).sort().values)
        assert torch.equal(found[:, 0], found[:, 1])  # channels stay together
        assert (found != x).float().mean() > 0.5
    assert torch.equal(blur._shuffled(x, 2, 0.0, rng()), x)


def test_glass_exchanges_pixels_at_most_as_far_apart_as_it_may():
    """With one pixel in a thousand moving, hardly any moves twice."""
    x = torch.arange(32.0 * 32).view(1, 1, 32, 32).repeat(300, 1, 1, 1)
    found = blur._shuffled(x, 2, 0.001, rng())
    moved = found != x
    assert 0.0005 < moved.float().mean() < 0.003
    now, before = x[moved].long(), found[moved].long()
    far = torch.maximum((now // 32 - before // 32).abs(), (now % 32 - before % 32).abs())
    assert (far <= 2).float().mean() > 0.98
    assert (far == 2).float().mean() > 0.4  # 7 of the 15 other places of a tile


def test_a_movement_along_the_rows_is_half_a_gaussian():
    x = random_images(2, 3, 20, 40).float()
    taps = np.exp(-(np.arange(21) ** 2) / (2 * 5.0**2))
    kernel = np.concatenate([np.zeros(20), taps / taps.sum()])
    expected = correlate1d(x.numpy(), kernel, axis=3, mode="nearest")
    found = pixels.smeared(x, length=20, sigma=5, degrees=torch.zeros(2))
    np.testing.assert_allclose(found.numpy(), expected, atol=0.05)


def test_every_image_moves_in_its_own_direction():
    point = torch.zeros(2, 1, 41, 41)
    point[:, :, 20, 20] = 1
    found = pixels.smeared(point, length=10, sigma=5, degrees=torch.tensor([90.0, 45.0]))
    rows, columns = ([int(i) for i in v] for v in (found > 0.02)[0, 0].nonzero().T.aminmax(dim=1))
    assert rows[1] == columns[1] == 20  # a column, upwards
    assert rows[0] < 15
    assert columns[0] == 20
    diagonal = (found[1, 0] > 0.02).nonzero()
    assert (diagonal[:, 0] - diagonal[:, 1]).abs().max() <= 1


@pytest.mark.parametrize("factor", [1.0, 1.13, 2.0])
def test_zoom_enlarges_the_middle(factor):
    x = random_images(1, 1, 12, 15).float()
    rows, columns = np.mgrid[:12, :15].astype(float)
    points = np.stack([(rows - 5.5) / factor + 5.5, (columns - 7) / factor + 7])
    expected = map_coordinates(x[0, 0].numpy(), points, order=1)
    np.testing.assert_allclose(pixels.zoomed(x, factor)[0, 0].numpy(), expected, atol=0.02)


def test_snow_only_brightens_and_falls_on_black_too():
    x = random_images(4, 3, 32, 32)
    found = corrupted("snow", x, 3)
    assert (found >= x).all()
    black = corrupted("snow", torch.zeros_like(x), 3)
    whitened = round(0.3 * 0.5 * 255)  # a share of 0.3 of half white
    assert int(black.min()) == whitened
    assert 0.02 < (black > whitened + 25).float().mean() < 0.6


@pytest.mark.parametrize("severity", [1, 5])
def test_frost_is_a_weighted_sum_of_the_image_and_crystals(severity):
    kept, added = ((1, 0.4), (0.6, 0.75))[severity == 5]
    x = random_images(3, 3, 32, 32)
    crystals = weather._crystals(x, rng())
    assert crystals.min() >= 0
    assert crystals.max() <= 1
    expected = (kept * x + added * 255 * crystals).clamp(max=255)
    assert (corrupted("frost", x, severity).float() - expected).abs().max() <= 0.51


def test_frost_has_bright_lines_on_dark():
    for side in (28, 224):
        crystals = weather._crystals(torch.zeros(30, 1, side, side), rng())
        assert 0.15 < crystals.mean() < 0.35
        assert (crystals > 0.5).float().mean() > 0.1
        assert (crystals < 0.1).float().mean() > 0.2


def test_fog_keeps_the_brightest_level_an_upper_bound_and_black_black():
    x = random_images(3, 3, 32, 32) // torch.tensor([1, 2, 3]).view(-1, 1, 1, 1)
    x = x.byte()
    for severity, amount, decay in ((1, 1.5, 2), (4, 2.75, 1.5), (5, 3, 1.4)):
        found = corrupted("fog", x, severity)
        top = x.flatten(1).amax(1).view(-1, 1, 1, 1).float() / 255
        bank = weather.plasma(x, decay, rng())
        expected = (x / 255 + amount * bank) * top / (top + amount) * 255
        assert (found.float() - expected).abs().max() <= 0.51
        assert (found <= x.flatten(1).amax(1).view(-1, 1, 1, 1)).all()
    assert not corrupted("fog", torch.zeros_like(x), 3).any()


def test_fractal_noise_is_that_of_the_diamond_square_algorithm():
    side, decay, draws = 8, 1.7, rng(3)
    noise = np.zeros((side, side))
    step, amplitude = side, 1.0
    while step > 1:
        half, count = step // 2, side // step
        new = [(torch.rand(1, count, count, generator=draws)[0] * 2 - 1).numpy() for _ in range(3)]
        corners = range(0, side, step)
        for i in corners:
            for j in corners:
                square = [
                    noise[(i + a) % side, (j + b) % side] for a in (0, step) for b in (0, step)
                ]
                noise[i + half, j + half] = np.mean(square)
                noise[i + half, j + half] += amplitude * new[0][i // step, j // step]
        for i in corners:
            for j in corners:
                for (a, b), drawn in zip(((0, half), (half, 0)), new[1:], strict=True):
                    y, x = i + a, j + b
                    near = ((y - half, x), (y + half, x), (y, x - half), (y, x + half))
                    noise[y, x] = np.mean([noise[p % side, q % side] for p, q in near])
                    noise[y, x] += amplitude * drawn[i // step, j // step]
        step, amplitude = half, amplitude / decay**2
    expected = (noise - noise.min()) / (noise.max() - noise.min())
    found = weather.plasma(torch.zeros(1, 3, side, side), decay, rng(3))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)
    cut = weather.plasma(torch.zeros(1, 3, 5, 7), decay, rng(3))
    assert torch.equal(cut, found[:, :, :5, :7])


def test_brightness_is_the_value_of_hsv():
    x = random_images(1, 3, 9, 9)
    x[0, :, 0, 0] = 0
    for severity in range(1, 6):
        found = corrupted("brightness", x, severity)[0].flatten(1).T.tolist()
        for pixel, bright in zip(x[0].flatten(1).T.tolist(), found, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in pixel))
            rgb = colorsys.hsv_to_rgb(hue, saturation, min(1, value + severity / 10))
            assert bright == pytest.approx([255 * c for c in rgb], abs=0.51)


def test_the_value_of_a_gray_image_is_shifted():
    x = random_images(2, 1, 28, 28)
    expected = (x.float() + 0.3 * 255).clamp(max=255)
    assert (corrupted("brightness", x, 3).float() - expected).abs().max() <= 0.51


def test_contrast_keeps_the_mean_of_each_channel():
    x = random_images(3, 3, 28, 28)
    mean = x.float().mean((2, 3), keepdim=True)
    for severity, factor in enumerate((0.4, 0.3, 0.2, 0.1, 0.05), start=1):
        found = corrupted("contrast", x, severity).float()
        assert (found - (mean + factor * (x - mean))).abs().max() <= 0.51


@pytest.mark.parametrize("side", [28, 32, 64, 224])
def test_pixels_become_as_large_as_pillow_makes_them(side):
    x = photos(1, side, 1.5)
    image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    for severity, share in enumerate((0.6, 0.5, 0.4, 0.3, 0.25), start=1):
        small = image.resize([int(side * share)] * 2, Image.Resampling.BOX)
        expected = np.asarray(small.resize((side, side), Image.Resampling.BOX)).transpose(2, 0, 1)
        found = corrupted("pixelate", x, severity)[0].numpy()
        same = np.abs(found.astype(int) - expected) <= 1
        # A pixel whose centre lies on the border of two blocks belongs to the other one there.
        assert same.mean() > 0.9, (side, severity)


LUMINANCE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112
100 103 99"""  # the standard's example table (ITU-T T.81, table K.1), which libjpeg scales


@pytest.mark.parametrize(("severity", "quality"), [(1, 25), (2, 18), (3, 15), (4, 10), (5, 7)])
def test_jpeg_rounds_the_cosine_transform_of_blocks_by_the_standard_s_table(severity, quality):
    table = np.array(LUMINANCE.split(), int).reshape(8, 8)
    table = np.clip((table * (5000 // quality) + 50) // 100, 1, 255)
    x = photos(2, 64, 3)[:, :1]
    found = corrupted("jpeg_compression", x, severity).numpy().astype(int)
    errors = []
    for i, row, column in np.ndindex(2, 8, 8):
        at = (i, 0, slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        levels = np.rint(dctn(x.numpy()[at].astype(float) - 128, norm="ortho") / table)
        expected = np.clip(idctn(levels * table, norm="ortho") + 128, 0, 255)
        errors.append(np.abs(found[at] - expected).mean())
    # A coefficient halfway between two multiples may go the other way.
    assert np.mean(np.array(errors) < 0.6) > 0.9


def test_jpeg_keeps_colours():
    x = photos(4, 64, 3)
    found = corrupted("jpeg_compression", x, 1)
    assert (found.float().mean((2, 3)) - x.float().mean((2, 3))).abs().max() < 4


def test_four_channels_are_compressed_one_by_one():
    x = photos(1, 32, 4)
    x = torch.cat([x, x[:, :1]], 1)
    found = corrupted("jpeg_compression", x, 2)
    for channel in range(4):
        alone = corrupted("jpeg_compression", x[:, channel : channel + 1], 2)
        assert torch.equal(found[:, channel], alone[:, 0])


def test_an_affine_map_moves_its_three_points_as_it_is_told():
    x = torch.zeros(1, 1, 31, 31)  # the square's corners are at 15 -+ 31 / 3
    corners = torch.tensor([[[1.0, 2.0], [-3.0, 0.5], [0.0, 4.0]]])
    reach = 31 / 3 / 15
    points = torch.tensor([[[[reach, reach], [reach, -reach], [-reach, -reach]]]])
    assert torch.allclose(digital._affine_shift(x, points, corners)[0, 0], corners[0], atol=1e-5)
    middle = digital._affine_shift(x, torch.zeros(1, 1, 1, 2), corners)[0, 0, 0]
    assert torch.allclose(middle, (corners[0, 0] + corners[0, 2]) / 2)


@pytest.mark.parametrize("sigma", [0.3, 1.2, 2.5])
def test_warps_have_a_mean_square_of_one(sigma):
    noise = digital._smooth_noise(torch.zeros(60, 1, 40, 40), sigma, rng())
    inner = noise[:, 10:-10, 10:-10]
    assert inner.square().mean().item() == pytest.approx(1, rel=0.06)
    step = (inner[:, 1:] - inner[:, :-1]).square().mean().item()
    # Of noise smoothed by a Gaussian, neighbours correlate by exp(-1 / 4 sigma^2).
    assert step == pytest.approx(2 - 2 * np.exp(-1 / (4 * sigma**2)), rel=0.1)


def test_elastic_reads_the_image_elsewhere_and_makes_no_new_levels():
    x = random_images(8, 1, 28, 28).clamp(60, 200)
    found = corrupted("elastic_transform", x, 5)
    assert int(found.min()) >= 60
    assert int(found.max()) <= 200
    flat = torch.full_like(x, 77)
    assert torch.equal(corrupted("elastic_transform", flat, 5), flat)


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "pixelate"]
)
def test_an_image_of_one_level_has_nothing_to_lose(name):
    for side in (28, 130):
        x = torch.full((2, 3, side, side), 99, dtype=torch.uint8)
        for severity in (1, 3, 5):
            assert torch.equal(corrupted(name, x, severity), x)
