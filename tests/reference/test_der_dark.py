"""DER and DER++: their terms and what they store, computed again."""

import pytest
import torch
from replay_steps import naive_cross_entropy, rows_of, started, undone

from methods.supervised.der_dark import Config


def drawn(method):
    """The next replayed rows and their logits in fresh views, in training mode."""
    old = method.buffer.sample(method.ctx.training.replay_batch, method.ctx.random("replay"))
    return old, method.net(method.views(old["x"]))


def close(found, expected):
    return float(found.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_terms_are_those_of_the_stream_and_of_two_draws():
    run, batches = started("der_dark", tasks=1, config=Config(alpha=0.3, beta=0.7))
    method, batch = run.method, batches[0]
    with undone(method), torch.no_grad():
        stream = naive_cross_entropy(method.net(method.views(batch.x)), batch.y)
        first, logits = drawn(method)
        squares = [(a - b) ** 2 for a, b in zip(logits, first["logits"], strict=True)]
        second, again = drawn(method)
        labels = naive_cross_entropy(again, second["y"])
    assert not torch.equal(first["x"], second["x"])
    terms = method.loss(batch)
    assert list(terms) == ["stream", "logits", "labels"]
    assert close(terms["stream"], stream)
    assert close(terms["logits"], 0.3 * torch.cat(squares).sum() / (16 * 10))
    assert close(terms["labels"], 0.7 * labels)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (Config(alpha=0.3, beta=0.0), ["stream", "logits"]),
        (Config(alpha=0.0, beta=0.5), ["stream", "labels"]),
    ],
)
def test_a_term_without_weight_is_left_out(config, names):
    run, batches = started("der_dark", tasks=1, config=config)
    assert list(run.method.loss(batches[0])) == names


def test_before_anything_is_stored_there_is_the_stream_alone():
    run, batches = started("der_dark", tasks=0)
    assert list(run.method.loss(batches[0])) == ["stream"]


def test_images_are_stored_with_the_logits_of_the_view_before_the_step():
    run, batches = started("der_dark", tasks=0)
    method, batch = run.method, batches[0]
    with undone(method), torch.no_grad():
        expected = method.net(method.views(batch.x))
    with undone(method), torch.no_grad():
        method.net.eval()
        plain = method.net(method.ctx.normalize(batch.x))
        method.net.train()
    method.observe(batch)
    held = method.buffer.everything()
    assert torch.equal(held["x"], batch.x)
    assert torch.equal(held["y"], batch.y)
    torch.testing.assert_close(held["logits"], expected)
    assert not torch.allclose(held["logits"], plain, atol=1e-2)
    assert not held["logits"].requires_grad


def test_each_of_several_passes_is_made_on_one_entry_of_the_batch():
    run, batches = started("der_dark", tasks=0, passes=3)
    run.method.observe(batches[0])
    assert len(run.method.buffer) == len(batches[0].x)


def test_a_full_reservoir_keeps_images_with_their_own_labels():
    run, _ = started("der_dark", tasks=2)
    held, train = run.method.buffer.everything(), run.scenario.dataset.train
    seen = torch.cat([task.train for task in run.scenario.tasks[:2]])
    rows = seen[rows_of(held["x"], train.x[seen])]
    assert len(held["y"]) == 40
    assert torch.equal(train.y[rows], held["y"])


def test_stored_logits_are_fixed_targets():
    run, batches = started("der_dark", tasks=1)
    before = run.method.buffer.everything()["logits"].clone()
    run.method.loss(batches[0])["logits"].backward()
    assert torch.equal(run.method.buffer.everything()["logits"], before)
    assert all(p.grad is not None for p in run.method.net.parameters())


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_negative_weights_are_refused(name):
    with pytest.raises(ValueError, match=name):
        Config(**{name: -0.1})
