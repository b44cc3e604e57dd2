"""The separation and completion networks: sizes, padding, rounding and noise."""

import pytest
import torch
from torch import nn

from methods.parts.compression import completion, cropped, noisy, padded, quantised, separation


def count(net):
    return sum(p.numel() for p in net.parameters())


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_published_networks_have_as_many_parameters_as_counted_by_hand():
    encoder, decoder = separation(3, 128, 192, 4), completion(192, 128, 3, 4)
    assert count(encoder) == 9_728 + 2 * 409_728 + 614_592 == 1_443_776
    assert count(decoder) == 614_528 + 2 * 409_728 + 9_603 == 1_443_587
    assert sum(p.nbytes for p in decoder.parameters()) == 5_774_348


@pytest.mark.parametrize(
    ("size", "cue", "whole"),
    [
        ((224, 224), (14, 14), (224, 224)),
        ((224, 168), (14, 11), (224, 176)),
        ((149, 224), (10, 14), (160, 224)),
    ],
)
def test_four_stages_make_cues_of_a_sixteenth_and_images_of_the_same_size(size, cue, whole):
    with torch.device("meta"):
        encoder, decoder = separation(3, 128, 192, 4), completion(192, 128, 3, 4)
        x = padded(torch.empty(2, 3, *size), 16)
        assert x.shape == (2, 3, *whole)
        z = encoder(x)
        assert z.shape == (2, 192, *cue)
        assert decoder(z).shape == (2, 3, *whole)
        assert cropped(decoder(z), size).shape == (2, 3, *size)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("size", [(28, 28), (32, 20), (9, 13)])
def test_any_channels_stages_and_sizes_go_there_and_back(channels, stages, size):
    encoder, decoder = separation(channels, 6, 5, stages), completion(5, 6, channels, stages)
    x = images(2, channels, *size)
    z = encoder(padded(x, 2**stages))
    assert z.shape == (2, 5, *(-(-side // 2**stages) for side in size))
    assert cropped(decoder(z), size).shape == x.shape


@pytest.mark.parametrize("stages", [1, 4])
def test_there_is_a_relu_after_every_layer_but_the_last(stages):
    for net in (separation(3, 8, 6, stages), completion(6, 8, 3, stages)):
        relus = [isinstance(layer, nn.ReLU) for layer in net]
        assert relus == [False, True] * (stages - 1) + [False]


def test_cues_and_recalled_images_have_both_signs():
    torch.manual_seed(0)
    z = separation(1, 8, 8, 2)(images(4, 1, 16, 16) - 0.5)
    assert (z > 0).any()
    assert (z < 0).any()


def test_padding_reflects_at_the_right_and_the_bottom():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    wide = padded(x, 5)[0, 0]
    assert wide.tolist() == [
        [0, 1, 2, 3, 2],
        [4, 5, 6, 7, 6],
        [8, 9, 10, 11, 10],
        [4, 5, 6, 7, 6],
        [0, 1, 2, 3, 2],
    ]


def test_padding_repeats_the_border_of_images_that_are_too_small_to_be_reflected():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    assert padded(x, 4)[0, 0].tolist() == [[1, 2, 2, 2], [3, 4, 4, 4], [3, 4, 4, 4], [3, 4, 4, 4]]


@pytest.mark.parametrize("size", [(149, 224), (5, 3), (1, 1), (16, 16)])
def test_cropping_undoes_padding(size):
    x = images(2, 3, *size)
    assert torch.equal(cropped(padded(x, 16), size), x)
    assert all(side % 16 == 0 for side in padded(x, 16).shape[-2:])


def test_images_of_the_right_size_are_not_padded():
    x = images(1, 3, 32, 16)
    assert padded(x, 16) is x


def test_rounding_goes_to_the_nearest_integer_and_halves_to_the_even_one():
    z = torch.tensor([-2.5, -1.5, -0.51, -0.5, 0.5, 1.5, 2.5, 2.51, -1e4])
    found = quantised(z)
    assert found.dtype == torch.int32
    assert found.tolist() == [-2, -2, -1, 0, 0, 2, 2, 3, -10000]


def test_noise_is_uniform_within_half_a_step_and_has_the_gradient_of_the_cue():
    z = torch.full((100, 1000), 3.0, requires_grad=True)
    found = noisy(z, torch.Generator().manual_seed(0))
    noise = (found - 3).detach()
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    assert noise.mean().abs() < 4 / (12 * noise.numel()) ** 0.5  # standard deviations of the mean
    shares = torch.histc(noise, 10, -0.5, 0.5) / noise.numel()
    assert (shares - 0.1).abs().max() < 0.005
    found.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_noise_comes_from_the_generator_alone():
    z, before = images(3, 4), torch.get_rng_state()
    first, second = (noisy(z, torch.Generator().manual_seed(s)) for s in (5, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, noisy(z, torch.Generator().manual_seed(6)))
    assert torch.equal(before, torch.get_rng_state())
