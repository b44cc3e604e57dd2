"""The piecewise-linear entropy model, against its definition written out number by number."""

import math

import numpy as np
import pytest
import torch

from methods.parts.entropy_model import LEAST, TAIL_WEIGHT, PiecewiseLinearCDF

SUPPORT = 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model(channels=3, support=SUPPORT, seed=0):
    """A model with uneven masses, in double precision."""
    made = PiecewiseLinearCDF(channels, support)
    with torch.no_grad():
        made.logits.add_(torch.randn(made.logits.shape, generator=generator(seed)))
    return made.double()


def cues(*shape, spread=6.0, seed=1):
    drawn = torch.rand(*shape, generator=generator(seed), dtype=torch.float64)
    return (2 * drawn - 1) * spread


def naive_cdf(v, logits):
    """F of one channel at one number: a straight line between knots, and the logistic tail."""
    weights = [math.exp(a) for a in logits]
    masses = [w / sum(weights) for w in weights]
    support = len(masses) // 2
    linear, knot = 0.0, -support - 0.5
    for mass in masses:
        linear += mass * min(max(v - knot, 0.0), 1.0)
        knot += 1
    return (1 - TAIL_WEIGHT) * linear + TAIL_WEIGHT / (1 + math.exp(-v / (support / 4)))


def naive(made, v):
    """Probabilities of (B, C, h, w) by differences of `naive_cdf`."""
    out = torch.empty_like(v)
    for place in np.ndindex(*v.shape):
        logits = made.logits[place[1]].tolist()
        value = v[place].item()
        out[place] = naive_cdf(value + 0.5, logits) - naive_cdf(value - 0.5, logits)
    return out


def differentiable_naive(logits, v):
    """The same with tensors, where every knot is visited: gradients without gather."""
    masses = logits.softmax(1)
    support = masses.shape[1] // 2
    knots = torch.arange(masses.shape[1], dtype=v.dtype) - support - 0.5

    def cdf(at):
        passed = (at[..., None] - knots).clamp(0, 1)
        linear = (passed * masses[None, :, None, None]).sum(-1)
        return (1 - TAIL_WEIGHT) * linear + TAIL_WEIGHT * (at / (support / 4)).sigmoid()

    return cdf(v + 0.5) - cdf(v - 0.5)


def test_probabilities_are_differences_of_the_distribution_function():
    made, v = model(), cues(2, 3, 2, 5)
    torch.testing.assert_close(made(v), naive(made, v), rtol=1e-9, atol=1e-14)
    wanted = made.cumulative(v + 0.5) - made.cumulative(v - 0.5)
    torch.testing.assert_close(made(v), wanted, rtol=1e-9, atol=1e-14)


def test_single_precision_keeps_the_probabilities_of_rare_symbols():
    made = PiecewiseLinearCDF(1, 32).double()
    v = torch.tensor([-200.0, -33.0, -31.5, 0.0, 30.25, 32.0, 100.0]).double().view(1, 1, 1, -1)
    exact = made(v)
    torch.testing.assert_close(made.float()(v.float()).double(), exact, rtol=1e-4, atol=0)


def test_the_distribution_function_rises_from_0_to_1():
    made = model()
    v = torch.linspace(-60, 60, 4001, dtype=torch.float64).expand(1, 3, 1, -1)
    rises = made.cumulative(v).diff(dim=-1)
    near = v[..., 1:].abs() < 20  # farther out the steps are below the last bits of 1
    assert (rises >= 0).all()
    assert (rises[near] > 0).all()
    ends = made.cumulative(torch.tensor([-1e6, 1e6]).double().expand(1, 3, 1, 2))
    torch.testing.assert_close(ends[0, :, 0], torch.tensor([[0.0, 1.0]] * 3).double())


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.5])
def test_masses_of_all_symbols_sum_to_one_wherever_the_grid_lies(shift):
    made = model()
    symbols = torch.arange(-400, 401, dtype=torch.float64) + shift
    sums = made(symbols.expand(1, 3, 1, -1)).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-10)


def test_the_first_masses_are_those_of_a_laplace_distribution_around_zero():
    p = PiecewiseLinearCDF(2).double()(torch.tensor([0.0, 1.0, -4.0]).double().expand(1, 2, 1, 3))
    assert (p[..., 1] / p[..., 0]).allclose(torch.tensor(math.exp(-1 / 3)).double(), rtol=1e-3)
    assert (p[..., 2] / p[..., 0]).allclose(torch.tensor(math.exp(-4 / 3)).double(), rtol=1e-3)


def test_probabilities_at_integers_are_the_table_of_the_coder():
    made = model()
    low, high = torch.tensor([-2, -SUPPORT - 9, 3]), torch.tensor([2, SUPPORT + 7, 3])
    tables = made.symbol_probabilities(low, high)
    for c, table in enumerate(tables):
        symbols = torch.arange(low[c], high[c] + 1).double()
        assert table.dtype == np.float64
        assert table.shape == (len(symbols),)
        assert (table > 0).all()
        expected = made(symbols.expand(1, 3, 1, -1))[0, c, 0]
        assert np.array_equal(table, expected.detach().numpy())
        masses = made.logits[c].softmax(0)
        inside = symbols.abs() <= SUPPORT
        known = masses[symbols[inside].long() + SUPPORT].detach().numpy()
        # Beside the tail, a symbol's probability is its mass.
        np.testing.assert_allclose(table[inside.numpy()], known, rtol=2e-4, atol=3e-5)


def test_the_table_of_a_model_in_single_precision_is_that_of_its_weights_in_double():
    made = model().float()
    low, high = torch.tensor([-5, -1, 0]), torch.tensor([5, 1, 9])
    ours = made.symbol_probabilities(low, high)
    exact = model().float().double().symbol_probabilities(low, high)
    assert all(np.array_equal(a, b) for a, b in zip(ours, exact, strict=True))
    assert made.logits.dtype == torch.float32  # the model itself stays as it is


def test_bits_are_the_sum_over_an_image_s_cue():
    made, v = model(), cues(3, 3, 2, 2)
    expected = [-sum(math.log2(p) for p in one.flatten().tolist()) for one in naive(made, v)]
    torch.testing.assert_close(made.bits(v), torch.tensor(expected).double())


def test_gradients_are_right_away_from_knots():
    made = model(channels=2)
    # Probabilities bend at integers: 1/8 away from them small steps stay on one line.
    v = (
        cues(2, 2, 1, 3).round()
        + 0.125
        + 0.75 * torch.rand(2, 2, 1, 3, generator=generator(3), dtype=torch.float64)
    )
    v.requires_grad_()

    def probabilities(logits, x):
        return torch.func.functional_call(made, {"logits": logits}, (x,))

    assert torch.autograd.gradcheck(probabilities, (made.logits, v))
    assert torch.autograd.gradcheck(made.cumulative, (v + 0.5,))


def test_gradients_are_those_of_the_sum_over_all_knots():
    made, v = model(), cues(4, 3, 2, 2, seed=7).requires_grad_()
    made.bits(v).sum().backward()
    logits, w = made.logits.detach().clone().requires_grad_(), v.detach().clone().requires_grad_()
    (-differentiable_naive(logits, w).log2()).sum().backward()
    torch.testing.assert_close(v.grad, w.grad, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(made.logits.grad, logits.grad, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("far", [-300.0, -40.0, 40.0, 300.0])
def test_outliers_are_possible_and_drawn_inwards(far):
    made = PiecewiseLinearCDF(1, 32)
    v = torch.full((1, 1, 1, 1), far, requires_grad=True)
    bits = made.bits(v)
    bits.backward()
    assert bits.isfinite().all()
    assert made(v).item() > LEAST
    assert v.grad.item() * far > 0  # a step against the gradient comes closer to 0


def test_what_is_beyond_all_bounds_has_finite_bits():
    v = torch.tensor([-1e30, -1e5, 1e5, 1e30]).view(1, 1, 1, -1).requires_grad_()
    made = PiecewiseLinearCDF(1)
    made.bits(v).backward()
    assert made.bits(v).isfinite().all()
    assert v.grad.isfinite().all()
    assert made.logits.grad.isfinite().all()


def test_what_is_no_number_has_no_probability():
    made = PiecewiseLinearCDF(1)
    v = torch.tensor([torch.nan, 0.0]).view(1, 1, 1, 2)
    for found in (made(v), made.cumulative(v)):
        assert found.isnan().flatten().tolist() == [True, False]
    assert made.bits(v).isnan().all()


def test_training_finds_the_frequencies_of_symbols():
    made = PiecewiseLinearCDF(1, 3)
    symbols = torch.tensor([0.0] * 6 + [1.0] * 3 + [-2.0]).view(1, 1, 1, -1)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        made.bits(symbols).sum().backward()
        optimizer.step()
    found = made(torch.tensor([0.0, 1.0, -2.0]).view(1, 1, 1, -1)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=2e-3)
