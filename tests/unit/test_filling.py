"""A file of images is filled by any number of processes, and gone on with after any accident."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import eventually, forked, lives, spoil, workers_of, write_picture

from harness.data import decoder, filling
from harness.data.base import DataError
from harness.data.decoder import Shape, pixels
from harness.data.filling import JOURNAL, Filled, fill
from harness.data.image_file import BLOCK, allocate, leave_out, mapped, sums, write_at
from harness.data.source import Pictures, Stored

SHAPE = Shape(8, "exact")
MANY = 10 * BLOCK - 7
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder of pictures, which nobody changes."""
    folder = tmp_path_factory.mktemp("originals")
    for number in range(MANY):
        write_picture(folder / f"{number:03}.jpg", number)
    return folder


@pytest.fixture
def pictures(originals, tmp_path):
    """A split of so many of these pictures, each a file that may be changed."""

    def split(count=MANY, shape=SHAPE):
        names = [f"{number:03}.jpg" for number in range(count)]
        (tmp_path / "raw").mkdir(exist_ok=True)
        for name in names:
            if not (tmp_path / "raw" / name).exists():
                (tmp_path / "raw" / name).write_bytes((originals / name).read_bytes())
        return Pictures(tmp_path / "raw", names, shape)

    return split


@pytest.fixture
def target(tmp_path):
    return tmp_path / "images.npy"


def expected(images):
    return np.stack([pixels(images.folder / path, images.shape) for path in images.paths])


def journal(target):
    """The blocks that the journal says are done, in the order of its lines."""
    path = target.with_suffix(JOURNAL)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [json.loads(line)["number"] for line in lines if line.endswith("}}")]


def again(images, target, **settings):
    """The blocks that filling the file once more had to decode."""
    before = len(journal(target))
    fill(target, images, **settings)
    return sorted(journal(target)[before:])


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_a_file_holds_every_picture_in_its_row(pictures, target, count):
    images = pictures(count)
    filled = fill(target, images)
    assert np.array_equal(np.load(target), expected(images))
    assert filled == Filled(sums(target, (count, 3, 8, 8)), {})
    assert len(filled.crc32) == -(-count // BLOCK)


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_processes_writes_the_same_file(pictures, target, tmp_path, workers):
    alone = fill(tmp_path / "alone.npy", pictures(), workers=1)
    assert fill(target, pictures(), workers=workers) == alone
    assert target.read_bytes() == (tmp_path / "alone.npy").read_bytes()
    assert sorted(journal(target)) == list(range(10))


def test_nothing_is_decoded_twice(pictures, target):
    images = pictures()
    first = fill(target, images)
    for path in images.folder.iterdir():
        spoil(path)
    assert fill(target, images) == first


def test_of_a_replaced_picture_only_its_block_is_decoded_again(pictures, target):
    images = pictures()
    fill(target, images)
    write_picture(images.folder / "070.jpg", 999)
    wanted = expected(images)
    for number in (*range(64), *range(128, MANY)):
        spoil(images.folder / f"{number:03}.jpg")
    assert again(images, target) == [1]
    assert np.array_equal(np.load(target), wanted)


def test_another_number_of_pictures_or_another_shape_starts_anew(pictures, target):
    fill(target, pictures(130))
    for images in (pictures(131), pictures(66), pictures(66, Shape(9, "center_crop"))):
        assert again(images, target) == list(range(-(-len(images) // BLOCK)))
        assert np.array_equal(np.load(target), expected(images))


def test_blocks_of_another_version_are_not_trusted(pictures, target, monkeypatch):
    fill(target, pictures(130))
    monkeypatch.setattr(decoder, "VERSION", decoder.VERSION + 1)
    assert again(pictures(130), target) == [0, 1, 2]


def test_a_block_whose_images_are_not_those_it_had_is_decoded_again(pictures, target):
    images = pictures(130)
    fill(target, images)
    with target.open("r+b") as file:
        file.seek(128 + 70 * 3 * 8 * 8)
        file.write(b"some bytes that a crash left here")
    assert again(images, target) == [1]
    assert np.array_equal(np.load(target), expected(images))


@pytest.mark.parametrize("damage", ["gone", "empty", "truncated", "longer", "other header"])
def test_a_damaged_file_is_filled_anew(pictures, target, damage):
    images = pictures(130)
    fill(target, images)
    whole = target.read_bytes()
    if damage == "gone":
        target.unlink()
    else:
        other = whole.replace(b"(130, 3, 8, 8)", b"(130, 8, 8, 3)")
        left = {"empty": b"", "truncated": whole[:-1], "longer": whole + b"x"}.get(damage, other)
        target.write_bytes(left)
    assert again(images, target) == [0, 1, 2]
    assert target.read_bytes() == whole


@pytest.mark.parametrize("tail", ['{"number": 2, "made_fr', "\0\0\0", '"word"\n3\n[]\n{}', "\xe9{"])
def test_a_line_of_the_journal_that_a_crash_cut_short_is_passed_over(pictures, target, tail):
    images = pictures(200)
    fill(target, images)
    path = target.with_suffix(JOURNAL)
    lines = [line for line in path.read_text().splitlines() if line]
    path.write_text("\n".join([*lines[:2], tail]), encoding="latin1")
    for number in range(128):
        spoil(images.folder / f"{number:03}.jpg")
    fill(target, images)
    path.write_bytes(path.read_bytes()[:-20])
    assert again(images, target) == [3]
    assert again(images, target) == []


def test_pictures_that_cannot_be_decoded_are_black_and_named_by_their_rows(pictures, target):
    images = pictures(130)
    wanted = expected(images)
    spoil(images.folder / "000.jpg")
    (images.folder / "129.jpg").write_bytes(b"")
    wanted[[0, 129]] = 0
    assert fill(target, images).faults == {0: "no image", 129: "no image"}
    assert np.array_equal(np.load(target), wanted)


def test_a_picture_fetched_again_is_decoded_again_though_its_size_is_the_same(pictures, target):
    images = pictures(130)
    wanted, whole = expected(images), (images.folder / "100.jpg").read_bytes()
    spoil(images.folder / "100.jpg")
    fill(target, images)
    (images.folder / "100.jpg").write_bytes(whole)
    assert again(images, target) == [1]
    assert np.array_equal(np.load(target), wanted)


def test_a_missing_picture_is_named_before_anything_is_decoded(pictures, target):
    images = pictures(130)
    (images.folder / "129.jpg").unlink()
    with pytest.raises(DataError, match=r"raw/129\.jpg: cannot be read \(No such file"):
        fill(target, images)
    assert journal(target) == []


@needs_proc
def test_no_process_goes_on_when_this_one_cannot(pictures, target, monkeypatch):
    class Closed:
        isatty = staticmethod(lambda: False)

        def write(self, *_):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    before = workers_of(os.getpid())
    monkeypatch.setattr(filling, "LINE_SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(BrokenPipeError) as error:  # held, as by whoever handles it
        fill(target, pictures(), workers=2)
    assert workers_of(os.getpid()) == before
    del error


@pytest.fixture
def stuck(pictures, target):
    """A process that fills the file with two others; one waits for a picture that never ends."""
    images = pictures()
    path = images.folder / "200.jpg"
    whole = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    process = forked(_fill_or_say_why, target, images)
    eventually(lambda: len(journal(target)) >= 8)  # that one may have been given another block
    yield process
    path.unlink()
    path.write_bytes(whole)
    wanted = expected(images)
    done = set(journal(target))
    for number in range(MANY):
        if number // BLOCK in done:
            spoil(images.folder / f"{number:03}.jpg")
    assert again(images, target, workers=2) == sorted(set(range(10)) - done)
    assert np.array_equal(np.load(target), wanted)


def _fill_or_say_why(target, images):
    try:
        fill(target, images, workers=2)
    except KeyboardInterrupt:
        os._exit(100)
    except DataError as error:
        os._exit(101 if "killed" in str(error) else 1)
    except OSError as error:
        os._exit(error.errno)


@needs_proc
@pytest.mark.parametrize(
    ("number", "ends_with"), [("SIGKILL", -9), ("SIGTERM", -15), ("SIGINT", 100)]
)
def test_however_it_is_ended_the_rest_is_done_later_and_no_process_stays(stuck, number, ends_with):
    workers = workers_of(stuck.pid)
    assert len(workers) == 2
    os.kill(stuck.pid, getattr(signal, number))
    stuck.join()
    assert stuck.exitcode == ends_with
    eventually(lambda: not any(map(lives, workers)))


@needs_proc
def test_a_process_that_is_killed_ends_the_others_with_a_message(stuck):
    first, second = workers_of(stuck.pid)
    os.kill(first, signal.SIGKILL)
    stuck.join()
    assert stuck.exitcode == 101
    eventually(lambda: not lives(second))


def test_a_place_too_small_is_found_out_at_once_and_leaves_nothing(pictures, target):
    process = forked(_with_little_space, target, pictures(130))
    process.join()
    assert process.exitcode == errno.EFBIG
    assert not target.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_writing_ends_all_and_what_was_written_is_kept(pictures, target, workers):
    images = pictures()
    allocate(target, (MANY, 3, 8, 8))
    process = forked(_with_little_space, target, images, workers)
    process.join()
    assert process.exitcode == errno.EFBIG
    done = set(journal(target))
    assert len(done) < 10
    assert again(images, target) == sorted(set(range(10)) - done)
    assert np.array_equal(np.load(target), expected(images))


def _with_little_space(target, images, workers=1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        fill(target, images, workers=workers)
    except OSError as error:
        os._exit(error.errno)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, None])
def test_a_file_system_that_cannot_reserve_space_serves_too(pictures, target, monkeypatch, code):
    def refused(*args):
        raise OSError(code, os.strerror(code))

    if code is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    fill(target, pictures(66))
    assert np.array_equal(np.load(target), expected(pictures(66)))


def test_what_the_disk_refuses_later_is_an_error_too(pictures, target, monkeypatch):
    refused = []

    def fsync(number):  # as of a network's file system, which tells a full disk once, and late
        if not refused:
            refused.append(number)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(filling, "FLUSH_SECONDS", 0)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        fill(target, pictures(), workers=1)


def test_without_processes_to_count_there_is_at_least_one(monkeypatch):
    assert 1 <= filling.cores() <= filling.MOST_WORKERS
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert 1 <= filling.cores() <= filling.MOST_WORKERS


def stored(origin, batches, count=200):
    """Images in a file, of which each batch gives these rows."""
    images = np.random.default_rng(0).integers(0, 256, (200, 2, 3, 4), np.uint8)
    origin.write_bytes(b"many images")
    reads = []

    def read():
        for rows in batches:
            reads.append(rows)
            yield np.array(rows, np.int64), images[rows]

    return Stored([origin], (2, 3, 4), count, read), images, reads


def test_images_of_one_file_may_come_in_any_order(target, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "LINE_SECONDS", 0)  # so that progress is told from the first
    rows = np.random.default_rng(1).permutation(200).tolist()
    batches = [[], rows[:7], rows[7:], []]
    source, images, reads = stored(tmp_path / "origin", batches)
    filled = fill(target, source)
    assert np.array_equal(np.load(target), images)
    assert filled == Filled(sums(target, images.shape), {})
    assert fill(target, source) == filled
    assert reads == batches


def test_images_that_are_not_those_that_were_read_are_read_again(target, tmp_path):
    source, images, reads = stored(tmp_path / "origin", [list(range(200))])
    fill(target, source)
    with target.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"bad")
    fill(target, source)
    assert np.array_equal(np.load(target), images)
    assert len(reads) == 2


def test_a_file_of_another_size_is_read_again(target, tmp_path):
    source, _, reads = stored(tmp_path / "origin", [list(range(200))])
    fill(target, source)
    (tmp_path / "origin").write_bytes(b"many other images")
    fill(target, source)
    assert len(reads) == 2


@pytest.mark.parametrize("rows", [list(range(199)), [*range(199), 3]])
def test_too_few_images_are_refused_each_time(target, tmp_path, rows):
    source, _, reads = stored(tmp_path / "origin", [rows])
    for _ in range(2):
        with pytest.raises(DataError, match="origin: 199 images, not 200"):
            fill(target, source)
    assert len(reads) == 2


def test_a_file_that_cannot_be_read_is_named(target, tmp_path):
    source = Stored([tmp_path / "origin"], (2, 3, 4), 9, list)
    with pytest.raises(DataError, match=r"origin: cannot be read \(No such file"):
        fill(target, source)

    def read():
        raise OSError(errno.EIO, "Input/output error")
        yield

    (tmp_path / "origin").touch()
    with pytest.raises(DataError, match=r"origin: cannot be read \(Input/output error"):
        fill(target, Stored([tmp_path / "origin"], (2, 3, 4), 9, read))


def test_a_kill_while_a_file_is_read_starts_it_again(target, tmp_path):
    source, images, _ = stored(tmp_path / "origin", [list(range(150)), list(range(150, 200))])

    def read():
        yield next(iter(source.read()))
        os.kill(os.getpid(), signal.SIGKILL)

    process = forked(fill, target, Stored(source.origins, source.sides, 200, read))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    fill(target, source)
    assert np.array_equal(np.load(target), images)


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    pictures, target, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(filling, "LINE_SECONDS", 0)
    fill(target, pictures(130))
    assert f"decoding {tmp_path / 'raw'}: 128 of 130 images, " in capsys.readouterr().err
    fill(target, pictures(130))
    assert capsys.readouterr().err == ""


def written(target, count=130):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 5, 7), np.uint8)
    allocate(target, images.shape)
    with target.open("r+b") as file:
        write_at(file, images, 0)
    return images


@pytest.mark.parametrize(
    "rows", [[0], [129], [63, 64], [5, 70, 128], range(1, 130), range(129), range(130)]
)
def test_rows_are_left_out_in_place(target, rows):
    images = written(target)
    left = np.delete(images, rows, axis=0)
    assert leave_out(target, images.shape, rows) == left.shape
    assert np.array_equal(np.load(target), left)
    assert target.stat().st_size == 128 + left.size
    assert np.array_equal(mapped(target, left.shape), left)


def test_what_is_written_to_a_mapped_image_does_not_reach_the_file(target):
    images = written(target)
    found = mapped(target, images.shape)
    found[:] = 7
    assert np.array_equal(mapped(target, images.shape), images)


@pytest.mark.parametrize("shape", [(129, 3, 5, 7), (130, 3, 7, 5), (131, 3, 5, 7)])
def test_a_file_of_other_images_is_not_mapped(target, shape):
    written(target)
    with pytest.raises(ValueError, match="no whole file of images"):
        mapped(target, shape)


@pytest.mark.skipif(sys.platform != "linux", reason="where memory is promised beyond what there is")
def test_a_file_larger_than_the_memory_can_be_mapped(target):
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine promises no more memory than it has")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = 4 * memory // (3 * 512 * 512)
    allocate(target, (1, 3, 512, 512))
    header = target.read_bytes()[:128].replace(b"(1, 3", b"(%d, 3" % count)
    with target.open("r+b") as file:
        file.write(header[:118].rstrip(b" \n").ljust(127) + b"\n")
        file.truncate(128 + count * 3 * 512 * 512)
    assert mapped(target, (count, 3, 512, 512))[-1].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("from_a_pipe", [False, True])
def test_the_main_program_is_not_run_again(pictures, target, tmp_path, from_a_pipe):
    images = pictures()
    program = (
        "from pathlib import Path; from harness.data.decoder import Shape; "
        "from harness.data.filling import fill; from harness.data.source import Pictures\n"
        f"fill(Path({str(target)!r}), Pictures(Path({str(images.folder)!r}), {images.paths}, "
        "Shape(8, 'exact')), workers=2); print('once')"
    )
    (tmp_path / "program.py").write_text(program)
    place = "-" if from_a_pipe else str(tmp_path / "program.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(filling.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, place], input=program, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("once\n", "", 0)
    assert sorted(journal(target)) == list(range(10))
