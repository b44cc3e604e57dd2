"""Exemplars that join the batches: how many of each class, which, and how they are dealt."""

from functools import partial

import pytest
import torch

from methods.base import Batch, Training
from methods.parts.exemplars import first_of_each, herded_of_each, random_of_each
from methods.parts.rehearsal import Rehearsal, directions, joined

CPU = torch.device("cpu")


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def images(labels):
    """Different images of 1x2x2 pixels: the first pixel is the class, the second the row."""
    y = torch.tensor(labels)
    x = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    x[:, 0, 0, 0] = y.to(torch.uint8)
    x[:, 0, 0, 1] = torch.arange(len(labels)).to(torch.uint8)
    return Batch(x, y, torch.arange(len(labels)))


def held(rehearsal):
    """Label, class pixel and row pixel of every exemplar."""
    kept = rehearsal.everything()
    return list(zip(kept["y"].tolist(), *kept["x"][:, 0, 0].T.tolist(), strict=True))


def filled(quota="per_class", *, size=12, classes=6):
    """Exemplars of two tasks of two classes with ten images each."""
    rehearsal = Rehearsal(Training(buffer_size=size, replay_batch=128), classes, quota, CPU)
    rehearsal.renew(images([0, 1] * 10), 2, first_of_each)
    rehearsal.renew(images([2, 3] * 10), 4, first_of_each)
    return rehearsal


def test_a_fixed_quota_is_the_same_from_the_start_and_fills_the_buffer_at_the_end():
    rehearsal = Rehearsal(Training(buffer_size=12, replay_batch=128), 6, "per_class", CPU)
    sizes = []
    for task in range(3):
        rehearsal.renew(images([2 * task, 2 * task + 1] * 10), 2 * task + 2, first_of_each)
        assert set(rehearsal.everything()["y"].bincount().tolist()) == {2}
        sizes.append(len(rehearsal))
    assert sizes == [4, 8, 12]


def test_a_quota_of_the_total_always_fills_the_buffer_and_shrinks_to_a_prefix():
    rehearsal = Rehearsal(Training(buffer_size=12, replay_batch=128), 6, "total", CPU)
    before = []
    for task, share in enumerate([6, 3, 2]):
        rehearsal.renew(images([2 * task, 2 * task + 1] * 10), 2 * task + 2, first_of_each)
        assert rehearsal.everything()["y"].bincount().tolist() == [share] * (2 * task + 2)
        for label in range(2 * task):
            ours = [row for row in held(rehearsal) if row[0] == label]
            theirs = [row for row in before if row[0] == label]
            assert ours == theirs[:share]
        before = held(rehearsal)


def test_the_published_quotas():
    fixed = Rehearsal(Training(buffer_size=2000, replay_batch=128), 100, "per_class", CPU)
    assert [fixed.share(seen) for seen in (10, 50, 100)] == [20, 20, 20]
    full = Rehearsal(Training(buffer_size=2000, replay_batch=128), 100, "total", CPU)
    assert [full.share(seen) for seen in (10, 50, 100)] == [200, 40, 20]


def test_images_keep_their_labels():
    assert all(label == pixel for label, pixel, _ in held(filled()))


@pytest.mark.parametrize("quota", ["per_class", "total"])
def test_a_class_with_fewer_images_than_its_share_has_all_of_them_and_none_twice(quota, rng):
    rehearsal = Rehearsal(Training(buffer_size=20, replay_batch=128), 2, quota, CPU)
    choose = partial(random_of_each, rng=rng)
    rehearsal.renew(images([0, 0, 0] + [1] * 15), 2, choose)
    kept = held(rehearsal)
    assert sorted(row for label, _, row in kept if label == 0) == [0, 1, 2]
    others = [row for label, _, row in kept if label == 1]
    assert len(others) == len(set(others)) == 10


def test_chosen_are_those_that_the_rule_says():
    data = images([0] * 6)
    features = torch.tensor([[9.0], [0.0], [5.0], [4.0], [6.0], [6.0]])  # their mean is 5
    rehearsal = Rehearsal(Training(buffer_size=3, replay_batch=128), 1, "per_class", CPU)
    rehearsal.renew(data, 1, lambda labels, share: herded_of_each(labels, share, features))
    # 5 hits the mean; then 4 and 6 are as far, the first wins; then 6 brings it back.
    assert [row for _, _, row in held(rehearsal)] == [2, 3, 4]


def test_nothing_is_drawn_while_there_is_nothing(rng):
    rehearsal = Rehearsal(Training(buffer_size=12, replay_batch=128), 6, "per_class", CPU)
    rehearsal.begin(3)
    before = rng.get_state()
    assert rehearsal.draw(rng) is None
    assert torch.equal(rng.get_state(), before)
    assert rehearsal.everything() == {}
    assert rehearsal.nbytes == len(rehearsal) == 0


@pytest.mark.parametrize(("batches", "share"), [(1, 8), (2, 4), (3, 3), (8, 1), (100, 1)])
def test_every_exemplar_comes_once_before_any_comes_again(batches, share, rng):
    rehearsal = filled()
    rehearsal.begin(batches)
    rows = []
    for _ in range(24):
        x, y = rehearsal.draw(rng)
        assert len(x) == len(y) == share
        assert torch.equal(x[:, 0, 0, 0].long(), y)
        rows += [tuple(pixels) for pixels in x[:, 0, 0].tolist()]
    wanted = sorted((label, row) for label, _, row in held(rehearsal))
    for start in range(0, len(rows) - 7, 8):
        assert sorted(rows[start : start + 8]) == wanted


def test_no_more_join_a_batch_than_the_protocol_replays(rng):
    rehearsal = Rehearsal(Training(buffer_size=12, replay_batch=5), 6, "per_class", CPU)
    rehearsal.renew(images([0, 1, 2, 3] * 5), 4, first_of_each)
    rehearsal.begin(1)  # 8 exemplars for one batch
    seen = [tuple(pixels) for _ in range(8) for pixels in rehearsal.draw(rng)[0][:, 0, 0].tolist()]
    assert len(seen) == 40
    assert {seen.count(one) for one in seen} == {5}  # in turn


def test_exemplars_that_were_renewed_must_be_dealt_anew(rng):
    rehearsal = filled()
    with pytest.raises(RuntimeError, match="begin"):
        rehearsal.draw(rng)
    rehearsal.begin(2)
    rehearsal.draw(rng)
    rehearsal.renew(images([4, 5] * 10), 6, first_of_each)
    with pytest.raises(RuntimeError, match="begin"):
        rehearsal.draw(rng)


def test_memory_is_that_of_the_images_and_labels_held():
    assert filled().nbytes == 8 * (4 + 8)
    assert filled("total").nbytes == 12 * (4 + 8)


def test_a_state_taken_between_two_draws_goes_on_bit_for_bit(rng):
    ours = filled()
    ours.begin(3)
    ours.draw(rng)
    theirs = Rehearsal(Training(buffer_size=12, replay_batch=128), 6, "per_class", CPU)
    theirs.load_state_dict(ours.state_dict())
    assert held(theirs) == held(ours)
    other = torch.Generator()
    other.set_state(rng.get_state())
    for _ in range(5):
        for one, two in zip(ours.draw(rng), theirs.draw(other), strict=True):
            assert torch.equal(one, two)


def test_a_loaded_state_is_a_copy():
    ours = filled()
    theirs = Rehearsal(Training(buffer_size=12, replay_batch=128), 6, "per_class", CPU)
    theirs.load_state_dict(ours.state_dict())
    before = held(ours)
    theirs.renew(images([4, 5] * 10), 6, first_of_each)
    assert held(ours) == before


def test_drawn_exemplars_stand_behind_the_batch():
    batch = images([4, 5, 4])
    x, y = joined(batch, None)
    assert x is batch.x
    assert y is batch.y
    old = images([0, 1])
    x, y = joined(batch, (old.x, old.y))
    assert y.tolist() == [4, 5, 4, 0, 1]
    assert torch.equal(x, torch.cat([batch.x, old.x]))


def test_directions_have_length_one_and_the_order_of_the_images(rng):
    x = torch.randint(0, 256, (600, 1, 2, 2), generator=rng, dtype=torch.uint8)
    found = directions(lambda part: part.flatten(1).double(), x)
    for row, image in zip(found, x.flatten(1).double(), strict=True):
        torch.testing.assert_close(row, image / image.norm())
