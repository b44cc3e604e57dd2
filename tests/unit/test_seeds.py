"""Random streams: one a purpose and task, the same whoever asks and in whichever order."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from harness.seeds import Randomness, derive_seed, generator


def draw(stream, count=5):
    return torch.rand(count, generator=stream).tolist()


def test_seeds_are_those_of_every_machine_and_version():
    assert derive_seed(0) == 3456079177858693020
    assert derive_seed(42, "batch-order", 3) == 2277835873816972476


def test_seeds_fit_every_generator_and_differ_by_root_purpose_and_task():
    purposes = [(), ("augment",), ("augment", 1), ("augment", 2), ("buffer", 1), ("a", "b")]
    seeds = [derive_seed(root, *purpose) for root in range(50) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_purposes_of_two_words_are_not_one_word():
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c")
    assert derive_seed(1, "1") != derive_seed(11)


def test_a_purpose_has_one_stream():
    streams = Randomness(0)
    assert streams("buffer") is streams("buffer")
    assert streams("buffer") is not streams("replay")


def test_what_one_purpose_draws_does_not_depend_on_others():
    alone, beside = Randomness(0), Randomness(0)
    draw(beside("augment"), 100)
    assert draw(alone("buffer")) == draw(beside("buffer"))
    assert draw(alone("buffer")) != draw(Randomness(0)("augment"))


def test_a_task_starts_every_stream_anew_in_place():
    streams = Randomness(0)
    stream = streams("buffer")
    first = draw(stream)
    streams.start_task(1)
    second = draw(stream)
    streams.start_task(0)
    assert streams("buffer") is stream
    assert draw(stream) == first != second


def test_a_stream_asked_for_late_is_that_of_its_task():
    early, late = Randomness(0), Randomness(0)
    early("augment")
    for streams in (early, late):
        streams.start_task(3)
    assert draw(early("augment")) == draw(late("augment")) == draw(generator(0, "augment", 3))


def test_streams_are_restored_in_place():
    saved, restored = Randomness(0), Randomness(0)
    saved.start_task(2)
    draw(saved("buffer"), 7)
    held, unknown = restored("buffer"), restored("augment")
    draw(held, 99)
    draw(unknown, 99)
    restored.load_state_dict(saved.state_dict())
    assert restored("buffer") is held
    assert draw(held) == draw(saved("buffer"))
    # One that was not saved is as fresh as it would have been there.
    assert draw(unknown) == draw(saved("augment"))


def test_a_saved_state_is_not_moved_by_later_draws():
    streams = Randomness(0)
    first = Randomness(0)
    draw(streams("buffer"), 3)
    state = streams.state_dict()
    draw(streams("buffer"), 3)
    first.load_state_dict(state)
    draw(first("buffer"), 3)
    assert draw(first("buffer")) == draw(streams("buffer"))


def test_weights_depend_on_seed_and_purpose_alone():
    def weights(streams, *purpose):
        return streams.weights(lambda: nn.Linear(4, 3), *purpose).weight

    busy = Randomness(0)
    draw(busy("augment"), 100)
    torch.rand(3)
    busy.start_task(4)
    assert torch.equal(weights(busy, "head"), weights(Randomness(0), "head"))
    assert not torch.equal(weights(busy, "head"), weights(busy, "backbone"))
    assert not torch.equal(weights(busy, "head"), weights(Randomness(1), "head"))


@pytest.mark.parametrize("fails", [False, True])
def test_the_global_generators_stay_as_they_are(fails):
    def make():
        nn.Linear(4, 3)
        if fails:
            raise ArithmeticError
        return torch.rand(3)

    torch.rand(1)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    try:
        Randomness(0).weights(make, "head")
    except ArithmeticError:
        assert fails
    draw(generator(0, "probe"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]  # noqa: NPY002
