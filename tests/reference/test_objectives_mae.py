"""The masked autoencoder against a version that rebuilds the whole image, patch by patch."""

import pytest
import torch
from torch import nn

from methods.backbones import cnn, vit_tiny
from methods.objectives import mae
from methods.objectives.mae import MAE, Config, patches, random_order
from methods.parts.patches import PatchBackbone

SHAPE = (3, 4, 8)  # eight patches of 2x2, in two rows of four
SIDE = 2
COUNT = 8


class Tokens(PatchBackbone):
    """A backbone by hand: a class token that is the mean of the visible patches' tokens."""

    def __init__(self, dim=6):
        super().__init__()
        self.feature_dim = dim
        self.patch_size = SIDE
        self.num_patches = COUNT
        self.image_shape = SHAPE
        self.embed = nn.Linear(SHAPE[0] * SIDE**2, dim)
        self.positions = nn.Parameter(torch.randn(COUNT, dim))
        self.kept = None

    def encode(self, x, keep=None):
        self.kept = keep
        every = torch.stack([torch.stack([cut(image, i) for i in range(COUNT)]) for image in x])
        tokens = self.embed(every.flatten(2)) + self.positions
        if keep is not None:
            tokens = torch.stack([one[numbers] for one, numbers in zip(tokens, keep, strict=True)])
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)

    def pool(self, tokens):
        return tokens[:, 0]


def place(number):
    """Rows and columns of a patch, numbered row by row."""
    row, column = divmod(number, SHAPE[2] // SIDE)
    return (
        slice(SIDE * row, SIDE * row + SIDE),
        slice(SIDE * column, SIDE * column + SIDE),
    )


def cut(image, number):
    """The (C, p, p) pixels of a patch."""
    return image[(slice(None), *place(number))]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=3, seed=7):
    return torch.randn(batch, *SHAPE, generator=rng(seed), dtype=torch.float64)


def build(dim=6, width=6, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Tokens(dim).double()
        small = Config(decoder_depth=2, decoder_heads=2, decoder_dim=width, **settings)
        return backbone, MAE(small, backbone).double()


def naive_loss(backbone, objective, x, mask_ratio):
    """The autoencoder in the order of the image: mask tokens at hidden places, all pixels painted.

    mean((painted - image)^2 * mask) / mask_ratio, mask being 1 at hidden pixels.
    """
    kept = backbone.kept
    tokens = backbone.encode(x, kept)
    decoder = objective.decoder
    painted, mask = torch.zeros_like(x), torch.ones_like(x)
    for i in range(len(x)):
        sequence = [decoder.enter(tokens[i, 0])] + [decoder.mask_token[0, 0]] * COUNT
        for k, number in enumerate(kept[i].tolist()):
            sequence[1 + number] = decoder.enter(tokens[i, 1 + k])
            mask[i][(slice(None), *place(number))] = 0
        decoded = decoder.blocks((torch.stack(sequence) + decoder.positions[0])[None])[0]
        for number in range(COUNT):
            pixels = decoder.leave(decoded[1 + number]).view(SHAPE[0], SIDE, SIDE)
            painted[i][(slice(None), *place(number))] = pixels
    return ((painted - x) ** 2 * mask).mean() / mask_ratio, mask


@pytest.mark.parametrize("mask_ratio", [0.25, 0.75])
@pytest.mark.parametrize("width", [6, 4])
def test_the_loss_is_that_of_painting_the_whole_image_and_so_are_its_gradients(mask_ratio, width):
    backbone, objective = build(width=width, mask_ratio=mask_ratio)
    x = images()
    found = objective(backbone, (x,), rng())
    wanted, mask = naive_loss(backbone, objective, x, mask_ratio)
    assert mask.mean().item() == mask_ratio
    torch.testing.assert_close(found.loss, wanted)
    inputs = [*backbone.parameters(), *objective.parameters()]
    for one, two in zip(
        torch.autograd.grad(found.loss, inputs), torch.autograd.grad(wanted, inputs), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_patches_are_numbered_row_by_row():
    x = images()
    found = patches(x, SIDE)
    for image, rows in zip(x, found, strict=True):
        for number in range(COUNT):
            assert torch.equal(rows[number], cut(image, number).flatten())


def test_only_pixels_of_hidden_patches_are_a_target():
    """An encoder that is blind to pixels leaves the target as their only way into the loss."""
    backbone, objective = build()
    with torch.no_grad():
        backbone.embed.weight.zero_()
    x = images()
    before = objective(backbone, (x,), rng()).loss
    visible = set(backbone.kept[1].tolist())
    for number in range(COUNT):
        changed = x.clone()
        cut(changed[1], number).add_(1)
        same = torch.equal(objective(backbone, (changed,), rng()).loss, before)
        assert same == (number in visible), number


def test_hidden_patches_do_not_reach_the_features():
    backbone, objective = build()
    x = images()
    (before,) = objective(backbone, (x,), rng()).features
    visible = set(backbone.kept[1].tolist())
    assert 0 < len(visible) < COUNT
    for number in range(COUNT):
        changed = x.clone()
        cut(changed[1], number).add_(1)
        (after,) = objective(backbone, (changed,), rng()).features
        assert torch.equal(after[1], before[1]) == (number not in visible), number
        assert torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vit_tiny_numbers_patches_as_the_autoencoder_does(pooling, monkeypatch):
    config = vit_tiny.Config(patch_size=SIDE, dim=6, depth=1, heads=2, pooling=pooling)
    backbone = vit_tiny.build(config, SHAPE).double()
    objective = MAE(Config(decoder_depth=1, decoder_heads=2, decoder_dim=6), backbone).double()
    encode, kept = backbone.encode, []
    monkeypatch.setattr(backbone, "encode", lambda x, keep: (kept.append(keep), encode(x, keep))[1])
    x = images()
    (before,) = objective(backbone, (x,), rng()).features
    for number in range(COUNT):
        changed = x.clone()
        cut(changed[1], number).add_(1)
        (after,) = objective(backbone, (changed,), rng()).features
        assert torch.equal(after[1], before[1]) == (number not in kept[0][1]), number


@pytest.mark.parametrize(
    ("mask_ratio", "hidden"), [(0.75, 6), (0.5, 4), (0.125, 1), (0.7, 6), (0.875, 7)]
)
def test_exactly_the_share_asked_for_is_hidden_in_every_image(mask_ratio, hidden):
    backbone, objective = build(mask_ratio=mask_ratio)
    objective(backbone, (images(5),), rng())
    assert objective.num_hidden == hidden
    assert backbone.kept.shape == (5, COUNT - hidden)
    assert all(len(set(row)) == COUNT - hidden for row in backbone.kept.tolist())
    assert backbone.kept.min() >= 0
    assert backbone.kept.max() < COUNT


@pytest.mark.parametrize("mask_ratio", [0.0, 0.01, 0.99, 1.0, 1.5, -0.5])
def test_a_share_that_leaves_nothing_to_hide_or_to_see_is_refused(mask_ratio):
    with pytest.raises(ValueError, match=r"objective mae: `mask_ratio` .* of 8 patches"):
        build(mask_ratio=mask_ratio)


def test_a_share_that_is_no_whole_number_of_patches_still_gives_a_mean_of_hidden_pixels():
    backbone, objective = build(mask_ratio=0.7)
    x = images()
    found = objective(backbone, (x,), rng()).loss
    torch.testing.assert_close(found, naive_loss(backbone, objective, x, 6 / 8)[0])


def test_the_same_stream_hides_the_same_patches_and_goes_on_to_others():
    backbone, objective = build()
    kept = []
    for stream in (rng(), rng(), rng(1)):
        for _ in range(2):
            objective(backbone, (images(),), stream)
            kept.append(backbone.kept)
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[1], kept[3])
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[4])


def test_masks_leave_the_global_generator_alone():
    backbone, objective = build()
    before = torch.get_rng_state()
    objective(backbone, (images(),), rng())
    assert torch.equal(torch.get_rng_state(), before)


def test_every_patch_is_as_likely_as_every_other_at_every_place():
    draws = 4000
    order = random_order(draws, 5, rng=rng(), device=torch.device("cpu"))
    assert torch.equal(order.sort(dim=1).values, torch.arange(5).expand(draws, -1))
    counts = torch.stack([(order == number).sum(0) for number in range(5)])
    spread = (draws * 0.2 * 0.8) ** 0.5
    assert (counts - draws / 5).abs().max() < 4 * spread
    assert len({tuple(row) for row in order.tolist()}) == 120


def test_features_and_projections_are_the_pooled_tokens_of_what_was_visible():
    backbone, objective = build()
    x = images()
    found = objective(backbone, (x,), rng())
    wanted = backbone.pool(backbone.encode(x, backbone.kept))
    assert len(found.features) == len(found.projections) == objective.num_views == 1
    torch.testing.assert_close(found.features[0], wanted)
    assert torch.equal(found.projections[0], found.features[0])
    assert objective.projection_dim == backbone.feature_dim


def test_measured_features_are_those_of_the_whole_image():
    backbone, objective = build()
    x = images()
    objective.eval()
    found = objective.encoder(backbone.eval())(x)
    assert backbone.kept is None
    torch.testing.assert_close(found, backbone.pool(backbone.encode(x)))
    assert torch.equal(objective.projector(found), found)


def test_a_backbone_without_patches_is_refused():
    backbone = cnn.build(cnn.Config((4, 8)), SHAPE)
    with pytest.raises(ValueError, match="mae needs a backbone of patches, such as vit_tiny"):
        MAE(Config(), backbone)


def test_settings_are_those_of_the_released_code():
    assert Config() == Config(mask_ratio=0.75, decoder_depth=4, decoder_heads=3, decoder_dim=192)
    with pytest.raises(ValueError, match="decoder_dim 192 does not divide by decoder_heads 5"):
        Config(decoder_heads=5)
    with pytest.raises(ValueError, match="decoder_depth must be at least 1, got 0"):
        Config(decoder_depth=0)


def test_the_decoder_is_as_deep_and_wide_as_asked_for():
    _, objective = build(dim=6, width=4)
    decoder = objective.decoder
    assert (decoder.enter.in_features, decoder.enter.out_features) == (6, 4)
    assert [block.attn.num_heads for block in decoder.blocks] == [2, 2]
    assert decoder.positions.shape == (1, COUNT + 1, 4)
    assert decoder.leave.out_features == 3 * 2 * 2
    assert isinstance(build(dim=6, width=6)[1].decoder.enter, nn.Identity)


def test_it_has_no_alignment():
    _, objective = build()
    assert not mae.build.alignable
    with pytest.raises(NotImplementedError, match="MAE has no alignment loss"):
        objective.alignment((images(),), (images(),))
