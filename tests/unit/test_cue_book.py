"""A task's cues come back bit for bit, from memory and from files; a wrong file is refused."""

import json
import pickle
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from methods.parts import cue_coder
from methods.parts.cue_book import CueBook, CueError, network_digest

ROOT = Path(__file__).parents[2]
NETWORK = "0123456789abcdef"


def laplace(low, high):
    """Probabilities, up to a factor, of symbols around 0."""
    channels = zip(low.tolist(), high.tolist(), strict=True)
    sizes = [abs(np.arange(first, last + 1)) for first, last in channels]
    return [np.exp((size.min() - size) / 1.5) for size in sizes]


def cues_of(shape, seed=0, scale=1.5):
    return np.rint(np.random.default_rng(seed).laplace(0, scale, shape)).astype(np.int32)


def book_of(cues, *, probabilities=laplace, image_size=(28, 26), network=NETWORK):
    labels, rows = torch.arange(len(cues)) % 3 + 5, torch.arange(len(cues)) * 10**10
    return CueBook.encode(cues, probabilities, labels, rows, image_size=image_size, network=network)


@pytest.fixture(scope="module")
def cues():
    return cues_of((7, 4, 3, 2))


@pytest.fixture(scope="module")
def book(cues):
    return book_of(cues)


def resealed(data, change):
    """The same file with a change to what stands before its checksum, as another program has it."""
    content = change(data[:-32])
    return content + sha256(content).digest()


def assert_same(one, other):
    assert one.to_bytes() == other.to_bytes()
    assert np.array_equal(one.decode(), other.decode())
    for name in ("labels", "rows"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert (one.shape, one.image_size, one.network) == (
        other.shape,
        other.image_size,
        other.network,
    )


@pytest.mark.parametrize("shape", [(192, 14, 14), (192, 14, 11), (32, 7, 7), (3, 2, 2), (1, 1, 1)])
def test_cues_of_any_shape_come_back(shape):
    cues = cues_of((3, *shape))
    decoded = book_of(cues).decode()
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, cues)


def test_cues_that_are_all_the_same_come_back_and_take_no_bits():
    cues = np.full((4, 3, 2, 2), -6)
    book = book_of(cues)
    assert np.array_equal(book.decode(), cues)
    assert book.payload_nbytes == 0
    assert book.bits().tolist() == [0, 0, 0, 0]
    assert_same(CueBook.from_bytes(book.to_bytes(), where="x", network=NETWORK), book)


def test_one_cue_of_one_symbol_comes_back():
    book = book_of(np.array([[[[2**31 - 1]]]]))
    assert book.decode().tolist() == [[[[2**31 - 1]]]]


def test_outliers_come_back():
    cues = cues_of((20, 2, 3, 3))
    cues[3, 1, 2, 0], cues[7, 1, 0, 0], cues[8, 0, 0, 0] = -30000, 30000, -(2**31)
    cues[:, 0] = np.minimum(cues[:, 0], -(2**31) + 50)
    assert np.array_equal(book_of(cues).decode(), cues)


def test_any_type_of_integers_gives_the_same_book(cues, book):
    for same in (torch.from_numpy(cues), torch.from_numpy(cues).to(torch.int8), cues.astype("i8")):
        assert_same(book_of(same), book)


def test_a_payload_has_one_cue_channel_by_channel_and_row_by_row(cues, book):
    payloads = [
        cue_coder.encode(
            np.array([[v for row in channel for v in row] for channel in cue.tolist()]), book.tables
        )
        for cue in cues
    ]
    assert book.payloads == b"".join(payloads)
    assert book.bits().tolist() == [8 * len(payload) for payload in payloads]


def test_tables_span_the_symbols_of_the_whole_task(cues):
    asked = []

    def probabilities(low, high):
        asked.append((low, high))
        return laplace(low, high)

    book = book_of(cues, probabilities=probabilities)
    ((low, high),) = asked
    for channel in range(4):
        values = cues[:, channel].flatten().tolist()
        assert (low[channel].item(), high[channel].item()) == (min(values), max(values))
        assert book.tables.lows[channel] == min(values)
        assert len(book.tables.tables[channel]) == max(values) - min(values) + 1


def test_some_cues_can_be_decoded_in_any_order(cues, book):
    for positions in ([5, 0, 6], [2, 2], torch.tensor([6, 1]), [-1], []):
        decoded = book.decode(positions)
        assert decoded.dtype == np.int32
        assert np.array_equal(decoded, cues[list(positions)].reshape(-1, 4, 3, 2))


@pytest.mark.parametrize("positions", [[7], [0, -8], [0.5]])
def test_positions_that_are_not_there_are_refused(book, positions):
    with pytest.raises(IndexError):
        book.decode(positions)
    with pytest.raises(IndexError):
        book.keep(positions)


def test_keeping_some_cues_copies_their_bytes(cues, book):
    ends = np.cumsum(book.bits().numpy() // 8)
    payloads = np.split(np.frombuffer(book.payloads, np.uint8), ends[:-1])
    order = [4, 0, 5]
    kept = book.keep(order)
    assert kept.payloads == b"".join(payloads[i].tobytes() for i in order)
    assert np.array_equal(kept.decode(), cues[order])
    assert kept.labels.tolist() == book.labels[order].tolist()
    assert kept.rows.tolist() == book.rows[order].tolist()
    assert kept.bits().tolist() == book.bits()[order].tolist()
    assert kept.tables is book.tables
    assert_same(kept.keep(torch.tensor([2, 1])), book.keep([5, 0]))


def test_keeping_all_or_nothing(book):
    assert_same(book.keep(range(len(book))), book)
    empty = book.keep([])
    assert len(empty) == empty.payload_nbytes == len(empty.labels) == len(empty.rows) == 0
    assert empty.decode().shape == (0, 4, 3, 2)
    assert_same(CueBook.from_bytes(empty.to_bytes(), where="x", network=NETWORK), empty)


def test_labels_and_rows_are_those_of_the_images(book):
    assert len(book) == 7
    assert book.labels.tolist() == [5, 6, 7, 5, 6, 7, 5]
    assert book.rows.tolist() == [i * 10**10 for i in range(7)]
    assert book.labels.dtype == book.rows.dtype == book.bits().dtype == torch.int64


def test_bytes_are_those_of_the_file(book):
    for part in (book, book.keep([3, 1]), book.keep([])):
        data = part.to_bytes()
        assert part.payload_nbytes == part.bits().sum() // 8
        assert part.payload_nbytes + part.index_nbytes == len(data)
        (header_nbytes,) = struct.unpack_from("<I", data, 20)
        tables_nbytes = sum(8 + 2 * len(table) for table in part.tables.tables)
        assert part.index_nbytes == 24 + header_nbytes + tables_nbytes + 16 * len(part) + 32


def test_the_same_cues_give_the_same_bytes(cues, book):
    assert book_of(cues.copy()).to_bytes() == book.to_bytes()


def test_a_book_comes_back_from_its_file(book, tmp_path):
    book.save(tmp_path / "task0.cues")
    assert_same(CueBook.load(tmp_path / "task0.cues", network=NETWORK), book)
    assert_same(CueBook.load(tmp_path / "task0.cues", network=None), book)
    assert (tmp_path / "task0.cues").stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_as_a_whole(book, tmp_path):
    path = tmp_path / "task0.cues"
    book.save(path)
    with path.open("rb") as reader:
        book.keep([1]).save(path)
        assert reader.read() == book.to_bytes()
    assert_same(CueBook.load(path, network=NETWORK), book.keep([1]))
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(book, tmp_path):
    (tmp_path / "task0.cues").mkdir()
    with pytest.raises(OSError, match="task0"):
        book.save(tmp_path / "task0.cues")
    assert [path.name for path in tmp_path.iterdir()] == ["task0.cues"]


def test_a_fresh_process_decodes_the_same_symbols(tmp_path):
    cues = cues_of((5, 24, 7, 6), scale=4)
    book_of(cues).save(tmp_path / "task0.cues")
    program = (
        "import sys, pathlib, numpy as np\n"
        "from methods.parts.cue_book import CueBook\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "book = CueBook.load(folder / 'task0.cues', network=sys.argv[2])\n"
        "np.save(folder / 'decoded.npy', book.decode())\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path, NETWORK], cwd=ROOT, check=True)
    assert np.array_equal(np.load(tmp_path / "decoded.npy"), cues)


def test_a_file_cut_short_is_refused_at_every_length(book):
    data = book.to_bytes()
    for length in range(len(data)):
        with pytest.raises(CueError, match=f"^task0.cues: cut short, {length} of at least"):
            CueBook.from_bytes(data[:length], where="task0.cues", network=NETWORK)


def test_a_file_with_a_flipped_bit_is_refused_wherever_it_is(book):
    data = book.to_bytes()
    seen = set()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(CueError, match=r"^task0.cues: ") as refusal:
            CueBook.from_bytes(bytes(flipped), where="task0.cues", network=NETWORK)
        seen.add(str(refusal.value).split(",")[0])
    damages = {"not a file of cues", "damaged", f"cut short, {len(data)} of at least"}
    assert seen == {f"task0.cues: {damage.split(',')[0]}" for damage in damages}


def test_a_file_with_more_behind_it_is_refused(book):
    for more in (b"\0", book.to_bytes()):
        with pytest.raises(CueError, match=r"^task0.cues: damaged, its checksum is wrong$"):
            CueBook.from_bytes(book.to_bytes() + more, where="task0.cues", network=NETWORK)


@pytest.mark.parametrize("data", [b"PAR1", b"\x89PNG\r\n\x1a\n" + bytes(99), pickle.dumps([1, 2])])
def test_another_kind_of_file_is_refused(data, tmp_path):
    (tmp_path / "task0.cues").write_bytes(data)
    with pytest.raises(CueError, match=r"/task0.cues: not a file of cues$"):
        CueBook.load(tmp_path / "task0.cues", network=None)


def test_cues_of_another_network_are_refused(book):
    wanted = r"^task0.cues: cues of another network \(0123456789abcdef, not 00000000deadbeef\)$"
    with pytest.raises(CueError, match=wanted):
        CueBook.from_bytes(book.to_bytes(), where="task0.cues", network="00000000deadbeef")


def test_another_format_is_refused(book):
    def newer(content):
        return content[:16] + struct.pack("<I", 2) + content[20:]

    with pytest.raises(CueError, match=r"^x: cues of format 2; this program reads 1$"):
        CueBook.from_bytes(resealed(book.to_bytes(), newer), where="x", network=NETWORK)


@pytest.mark.parametrize("coder", ["constriction 9.9", "another 0.5"])
def test_cues_of_a_coder_with_other_streams_are_refused(book, coder):
    def coded_otherwise(content):
        (size,) = struct.unpack_from("<I", content, 20)
        header = json.loads(content[24 : 24 + size])
        assert header["coder"] == cue_coder.stream_format()
        other = json.dumps({**header, "coder": coder}).encode()
        total = len(content) + 32 + len(other) - size
        start = struct.pack("<8sQII", content[:8], total, 1, len(other))
        return start + other + content[24 + size :]

    data = resealed(book.to_bytes(), coded_otherwise)
    with pytest.raises(CueError, match=f"^x: coded by {coder}, which .* may not read$"):
        CueBook.from_bytes(data, where="x", network=NETWORK)


def test_cues_that_are_no_cues_are_refused():
    with pytest.raises(ValueError, match="cues must be integers, got float32"):
        book_of(torch.zeros(2, 3, 1, 1))
    for shape in ((2, 3, 4), (0, 3, 1, 1), (2, 3, 0, 1)):
        with pytest.raises(ValueError, match=r"cues must be \(N, C, h, w\) and not empty"):
            book_of(np.zeros(shape, np.int32))


def test_labels_and_rows_that_do_not_match_are_refused(cues):
    def encode(labels, rows):
        return CueBook.encode(cues, laplace, labels, rows, image_size=(9, 9), network=NETWORK)

    seven = np.arange(7)
    with pytest.raises(ValueError, match=r"7 cues, but labels \(6,\) and rows \(7,\)"):
        encode(seven[:6], seven)
    with pytest.raises(ValueError, match=r"7 cues, but labels \(7,\) and rows \(7, 1\)"):
        encode(seven, seven[:, None])
    with pytest.raises(ValueError, match="labels must be int32"):
        encode(seven + 2**31, seven)
    with pytest.raises(ValueError, match="rows must be integers"):
        encode(seven, seven / 2)


def test_cues_that_are_too_wide_for_a_table_are_refused_before_their_probabilities_are_computed():
    def too_much(low, high):
        raise AssertionError(f"would have computed {high - low} probabilities")

    with pytest.raises(ValueError, match="channel 1 of the cues has symbols from 0 to 65536"):
        book_of(np.array([[[[0]], [[0]]], [[[0]], [[65536]]]]), probabilities=too_much)


def test_probabilities_that_miss_a_symbol_are_refused(cues):
    def short(low, high):
        return [p[:-1] for p in laplace(low, high)]

    with pytest.raises(ValueError, match=r"channel \d: a symbol is not in the table"):
        book_of(cues, probabilities=short)


def test_a_coder_that_loses_a_bit_is_noticed_while_the_images_are_still_there(cues, monkeypatch):
    encode = cue_coder.encode

    def careless(symbols, tables):
        changed = symbols.copy()
        changed[-1, -1] += 1 if changed[-1, -1] < tables.highs[-1] else -1
        return encode(changed, tables)

    monkeypatch.setattr(cue_coder, "encode", careless)
    with pytest.raises(RuntimeError, match="does not decode to what was encoded"):
        book_of(cues)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def changed(change):
    network = small_network()
    with torch.no_grad():
        change(network)
    return network


def test_the_digest_of_a_network_is_that_of_its_weights():
    digest = network_digest(small_network())
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")
    assert network_digest(small_network()) == digest
    assert network_digest(small_network().to(memory_format=torch.channels_last)) == digest
    assert network_digest(small_network().eval().requires_grad_(requires_grad=False)) == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net[0].weight.view(torch.int32)[2, 1, 2, 2].bitwise_xor_(1),
        lambda net: net[1].running_var[0].mul_(1.0001),
        lambda net: net[1].num_batches_tracked.add_(1),
        lambda net: net[0].bias.copy_(net[0].bias.flip(0)),
        lambda net: net.half(),
        lambda net: net.add_module("more", nn.Linear(1, 1)),
    ],
)
def test_the_digest_of_a_network_changes_with_any_of_its_numbers(change):
    assert network_digest(changed(change)) != network_digest(small_network())


def test_the_digest_of_a_network_changes_with_names_and_shapes():
    weight = torch.arange(6.0)
    digests = set()
    for name, shape in [("a", (2, 3)), ("a", (3, 2)), ("b", (2, 3))]:
        module = nn.Module()
        module.register_buffer(name, weight.view(shape))
        digests.add(network_digest(module))
    assert len(digests) == 3
