"""Cues come back bit for bit, in no more bits than their tables promise."""

import re
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest

from methods.parts import cue_coder
from methods.parts.cue_coder import TOTAL, FrequencyTables, decode, encode


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tables_of(*channels, lows=None):
    """Tables with these frequencies."""
    lows = np.zeros(len(channels), np.int32) if lows is None else np.array(lows, np.int32)
    return FrequencyTables(lows, tuple(np.array(channel, np.uint32) for channel in channels))


def laplace_tables(scale, lows, highs):
    symbols = [np.arange(low, high + 1) for low, high in zip(lows, highs, strict=True)]
    probabilities = [np.exp(-abs(s) / scale) for s in symbols]
    return FrequencyTables.from_probabilities(np.array(lows), probabilities)


def drawn(tables, n, rng):
    """Symbols (C, n) that are as frequent as the tables say."""
    channels = [
        low + rng.choice(len(table), n, p=table / TOTAL)
        for low, table in zip(tables.lows, tables.tables, strict=True)
    ]
    return np.array(channels, np.int32)


def information(symbols, tables):
    """Bits of the symbols by their tables, symbol by symbol."""
    return sum(
        -np.log2(table[symbol - low] / TOTAL)
        for row, low, table in zip(symbols, tables.lows, tables.tables, strict=True)
        for symbol in row
    )


def assert_round_trip(symbols, tables):
    payload = encode(symbols, tables)
    decoded = decode(payload, tables, symbols.shape[1])
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)
    return payload


@pytest.mark.parametrize("shape", [(192, 14, 14), (192, 14, 11), (32, 7, 7), (3, 2, 2), (1, 1, 1)])
def test_cues_of_any_shape_come_back(shape, rng):
    channels, height, width = shape
    tables = laplace_tables(1.5, rng.integers(-9, -1, channels), rng.integers(1, 9, channels))
    assert_round_trip(drawn(tables, height * width, rng), tables)


def test_symbols_come_back_that_the_tables_do_not_expect(rng):
    tables = laplace_tables(0.5, [-40] * 20, [40] * 20)
    assert_round_trip(rng.integers(-40, 41, (20, 50)), tables)


@pytest.mark.parametrize("symbol", [-40, 0, 40])
def test_a_constant_cue_comes_back(symbol):
    tables = laplace_tables(0.5, [-40] * 20, [40] * 20)
    assert_round_trip(np.full((20, 50), symbol), tables)


@pytest.mark.parametrize("rare", [0, 1, 99])
def test_symbols_that_are_all_the_rarest_cost_sixteen_bits_each(rare):
    table = np.ones(100, np.uint32)
    table[(rare + 50) % 100] = TOTAL - 99
    payload = assert_round_trip(np.full((4, 300), rare), tables_of(*[table] * 4))
    assert 0 <= 8 * len(payload) - 16 * 4 * 300 <= 32


def test_an_alternation_of_the_rarest_and_the_most_frequent_comes_back():
    tables = tables_of([1, TOTAL - 1], [TOTAL - 1, 1], [1, TOTAL - 2, 1])
    assert_round_trip(np.arange(3 * 500).reshape(3, 500) % 2, tables)


def test_extreme_symbols_come_back():
    least, greatest = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    tables = tables_of([1, TOTAL - 1], [TOTAL - 1, 1], lows=[least, greatest - 1])
    symbols = np.array([[least, least + 1, least], [greatest, greatest, greatest - 1]], np.int32)
    assert_round_trip(symbols, tables)


def test_a_table_may_have_all_the_symbols_there_is_room_for(rng):
    tables = tables_of(np.ones(TOTAL), lows=[-TOTAL // 2])
    symbols = np.array([[-TOTAL // 2, TOTAL // 2 - 1, *rng.integers(-TOTAL // 2, TOTAL // 2, 500)]])
    assert_round_trip(symbols, tables)


def test_a_channel_of_one_symbol_takes_no_bits(rng):
    alone = tables_of([TOTAL], [TOTAL], lows=[-7, 3])
    assert assert_round_trip(np.repeat([[-7], [3]], 5, axis=1), alone) == b""
    other = drawn(tables_of([600, TOTAL - 600]), 400, rng)
    between = tables_of([TOTAL], [600, TOTAL - 600], [TOTAL], lows=[-7, 0, 3])
    symbols = np.stack([np.full(400, -7), other[0], np.full(400, 3)])
    payload = assert_round_trip(symbols, between)
    assert payload == encode(other, tables_of([600, TOTAL - 600]))


@pytest.mark.parametrize("scale", [0.3, 1, 5, 100])
def test_real_bits_are_the_information_of_the_tables(scale, rng):
    tables = laplace_tables(scale, [-60] * 192, [70] * 192)
    symbols = drawn(tables, 196, rng)
    bits = 8 * len(encode(symbols, tables))
    wanted = information(symbols, tables)
    assert bits > 8 * 1024  # the promise is for cues above 1 kB
    assert abs(bits - wanted) <= 0.01 * wanted + 32


def test_real_bits_are_the_information_of_the_tables_for_symbols_that_they_do_not_expect(rng):
    tables = laplace_tables(0.5, [-40] * 32, [40] * 32)
    symbols = rng.integers(-40, 41, (32, 49))
    wanted = information(symbols, tables)
    assert abs(8 * len(encode(symbols, tables)) - wanted) <= 0.01 * wanted + 32


def test_the_stream_is_the_one_that_files_hold():
    """If this fails, the coder's streams have changed: stored cues cannot be read any more."""
    table = np.arange(1, 301) ** 2 % 211 + 1
    table[150] += TOTAL - table.sum()
    tables = tables_of(table, [TOTAL], table[::-1], lows=[-140, 5, 0])
    symbols = np.stack([np.arange(2000) ** 2 % 300 + low for low in (-140, 0, 0)])
    symbols[1] = 5
    stream = encode(symbols, tables)
    assert stream[:8].hex() == "04000000816a5501"
    assert sha256(stream).hexdigest()[:16] == "94e977ba9922ba12"


def test_numbers_of_any_type_and_layout_give_the_same_stream(rng):
    tables = laplace_tables(2.0, [-9] * 6, [9] * 6)
    symbols = drawn(tables, 30, rng)
    payload = encode(symbols, tables)
    assert encode(symbols.astype(np.int8), tables) == payload
    assert encode(symbols.astype(np.int64), tables) == payload
    assert encode(np.asfortranarray(symbols), tables) == payload
    assert encode(np.repeat(symbols, 2, axis=1)[:, ::2], tables) == payload


@pytest.mark.parametrize("wrong", [-3, 4, 2**31 - 1, -(2**31), 2**40, -(2**62), 2**32])
@pytest.mark.parametrize("place", [(0, 0), (1, 3), (2, 4)])
def test_a_symbol_outside_its_table_is_refused(place, wrong):
    tables = tables_of([9, TOTAL - 15, 6], [TOTAL], [1, 1, 1, 1, TOTAL - 4], lows=[-2, 0, -1])
    symbols = np.zeros((3, 5), np.int64)
    symbols[place] = wrong
    with pytest.raises(ValueError, match=f"channel {place[0]}: a symbol is not in the table"):
        encode(symbols, tables)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (2,), (2, 2, 2), (2, 0)])
def test_symbols_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="symbols for the tables of 2 channels"):
        encode(np.zeros(shape, np.int32), tables_of([5, TOTAL - 5], [5, TOTAL - 5]))


def test_a_payload_that_cannot_be_one_is_refused(rng):
    tables = tables_of([TOTAL // 2, TOTAL // 2], [9, TOTAL - 9])
    payload = encode(drawn(tables, 64, rng), tables)
    with pytest.raises(ValueError, match="whole words"):
        decode(payload[:-1], tables, 64)
    with pytest.raises(ValueError, match="longer than its symbols"):
        decode(payload + bytes(8), tables, 64)
    with pytest.raises(ValueError, match="longer than its symbols"):
        decode(payload, tables_of([TOTAL]), 64)
    with pytest.raises(ValueError, match="does not fit the tables"):
        decode(b"\xff" * len(payload), tables, 64)


@pytest.mark.parametrize("symbols", [1, 2, 3, 65, 1000, TOTAL - 1, TOTAL])
@pytest.mark.parametrize("concentration", [0.01, 1.0])
def test_tables_sum_to_their_total_and_every_symbol_can_occur(symbols, concentration, rng):
    probabilities = rng.gamma(concentration, size=symbols) + 1e-300
    (table,) = FrequencyTables.from_probabilities(np.array([0]), [probabilities]).tables
    assert table.sum() == TOTAL
    assert table.min() >= 1
    assert len(table) == symbols


def test_frequencies_are_rounded_as_by_exact_arithmetic(rng):
    probabilities = rng.integers(0, 2**20, 300) / 2**10
    (table,) = FrequencyTables.from_probabilities(np.array([0]), [probabilities]).tables
    exact = [Fraction(p) for p in probabilities]
    wanted = [1 + int(p / sum(exact) * (TOTAL - 300)) for p in exact]
    wanted[int(np.argmax(wanted))] += TOTAL - sum(wanted)
    assert table.tolist() == wanted


def test_rounding_costs_few_bits():
    symbols = np.arange(-32, 33)
    for scale in (0.2, 1.0, 8.0):
        probabilities = np.exp(-abs(symbols) / scale)
        probabilities /= probabilities.sum()
        (table,) = FrequencyTables.from_probabilities(np.array([-32]), [probabilities]).tables
        entropy = -(probabilities * np.log2(probabilities)).sum()
        cost = -(probabilities * np.log2(table / TOTAL)).sum()
        assert entropy <= cost <= entropy + 0.002


def test_probabilities_near_the_limits_of_floats_are_rounded_too():
    tiny, huge = np.array([5e-324, 1e-323, 0.0]), np.array([1e307, 0.0, 3e307])
    tables = FrequencyTables.from_probabilities(np.array([0, 0]), [tiny, huge]).tables
    assert [int(table.sum()) for table in tables] == [TOTAL, TOTAL]
    assert abs(tables[0][1] / tables[0][0] - 2) < 0.01
    assert abs(tables[1][2] / tables[1][0] - 3) < 0.01


@pytest.mark.parametrize(
    "probabilities", [[0.5, -0.1], [0.0, 0.0], [0.5, np.nan], [np.inf, 1.0], [1e308, 1e308, 1e308]]
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_probabilities_that_are_none_are_refused(probabilities):
    with pytest.raises(ValueError, match="channel 1: probabilities must be finite"):
        FrequencyTables.from_probabilities(
            np.array([0, 0]), [np.ones(2), np.array(probabilities, np.float64)]
        )


@pytest.mark.parametrize("symbols", [0, TOTAL + 1])
def test_a_table_with_no_symbol_or_too_many_is_refused(symbols):
    with pytest.raises(ValueError, match=f"channel 0: {symbols} symbols; a table holds 1 to 65536"):
        FrequencyTables.from_probabilities(np.array([0]), [np.ones(symbols)])


@pytest.mark.parametrize("table", [[0, TOTAL], [1, TOTAL], [1, TOTAL - 2], []])
def test_frequencies_that_do_not_add_up_are_refused(table):
    with pytest.raises(ValueError, match="channel 1: frequencies must be >= 1 and sum to 65536"):
        tables_of([TOTAL], table)


def test_tables_without_int32_symbols_are_refused():
    with pytest.raises(ValueError, match="int32"):
        tables_of([1, TOTAL - 1], lows=[2**31 - 1])
    with pytest.raises(ValueError, match="int32"):
        FrequencyTables.from_probabilities(np.array([2**31]), [np.ones(1)])
    with pytest.raises(ValueError, match="2 lowest symbols for 1 tables"):
        tables_of([TOTAL], lows=[0, 0])
    with pytest.raises(ValueError, match="0 lowest symbols for 0 tables"):
        tables_of()


def test_tables_are_stored_exactly(rng):
    widths = [1, 2, 65, 300, TOTAL]
    tables = FrequencyTables.from_probabilities(
        np.array([-(2**31), 2**31 - 2, -3, 0, 9]), [rng.gamma(0.3, size=k) for k in widths]
    )
    data = tables.to_bytes()
    assert len(data) == tables.nbytes == 4 * 5 + 4 * 5 + 2 * sum(widths)
    again = FrequencyTables.from_bytes(data, 5)
    assert again.lows.tolist() == tables.lows.tolist()
    assert [a.tolist() for a in again.tables] == [t.tolist() for t in tables.tables]


def test_stored_tables_of_another_length_are_refused():
    data = laplace_tables(2.0, [-3, 5, 0], [4, 5, 9]).to_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it is that does not fit
            FrequencyTables.from_bytes(data[:length], 3)
    with pytest.raises(ValueError, match="20 frequencies for 19 symbols"):
        FrequencyTables.from_bytes(data + bytes(2), 3)


def test_the_range_of_cues_is_that_of_each_channel(rng):
    cues = rng.integers(-50, 50, (6, 4, 3, 5)).astype(np.int16)
    lows, highs = cue_coder.symbol_range(cues)
    for channel in range(4):
        values = [cue[channel].tolist() for cue in cues]
        assert lows[channel] == min(min(row) for value in values for row in value)
        assert highs[channel] == max(max(row) for value in values for row in value)


def test_a_channel_that_is_too_wide_for_a_table_is_refused():
    cues = np.zeros((2, 3, 1, 1), np.int64)
    cues[:, 2, 0, 0] = [-5, TOTAL - 6]
    cue_coder.symbol_range(cues)
    cues[1, 2, 0, 0] += 1
    with pytest.raises(ValueError, match="channel 2 of the cues has symbols from -5 to 65531"):
        cue_coder.symbol_range(cues)
    cues[1, 1, 0, 0] = np.iinfo(np.int64).min  # an infinite value, rounded
    with pytest.raises(ValueError, match="channel 1 of the cues"):
        cue_coder.symbol_range(cues)


@pytest.mark.parametrize(
    ("release", "streams"),
    [
        ("0.5.0", "constriction 0.5"),
        ("0.5.9", "constriction 0.5"),
        ("0.6.0", "constriction 0.6"),
        ("1.5.0", "constriction 1"),
        ("1.6.2", "constriction 1"),
        ("10.0.3", "constriction 10"),
        ("0.0.3", "constriction 0.0.3"),
    ],
)
def test_streams_change_with_the_leading_number_of_the_version(release, streams):
    assert cue_coder.stream_format(release) == streams


def test_the_installed_coder_has_a_version():
    assert re.fullmatch(r"constriction (0\.)*[1-9]\d*", cue_coder.stream_format())
