"""The cache of a machine: each extent comes once, whatever is killed, full, wrong or gone; and what fetches ahead."""

import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from p2p.data import ahead, remote
from p2p.data.ahead import Ahead
from p2p.data.cache import Cache
from p2p.data.direct import Extent
from p2p.data.stores import StoreError, open_store
from tests.servers import web_server

SIZE = 10_000
RUNS = 20
SHARDS = 3
TARS = [np.random.default_rng(i).bytes(SIZE * RUNS) for i in range(SHARDS)]
EXTENTS = [Extent(s, r, f"{s}.tar", r * SIZE, SIZE) for s in range(SHARDS) for r in range(RUNS)]
WHOLE = [Extent(s, -1, f"{s}.tar", 0, SIZE * RUNS) for s in range(SHARDS)]
LIMIT = 2**30


def right(extent, start=0, size=None):
    """The bytes of an extent, or some of them."""
    first = extent.offset + start
    return TARS[extent.shard][first : first + (size or extent.size - start)]


def verify(extent, data):
    """As a set does it: against checksums."""
    if crc32(data) != crc32(right(extent)):
        raise ValueError(f"{extent.name} at byte {extent.offset}: wrong")


def in_sequence(pairs):
    """The order of the extents is that of their numbers."""
    pairs = np.asarray(pairs, np.int64)
    return pairs[:, 0] * RUNS + pairs[:, 1]


def make(url, folder, limit=LIMIT, name="set", next_use=in_sequence, report=lambda line: None):
    return Cache(open_store(url, report), folder, limit, name, verify, next_use, report)


def kept(folder, name="set"):
    """(shard, run) of the extents that are here."""
    return {tuple(map(int, path.name.split(".")[:2])) for path in (folder / name).glob("*.*.*.*")}


def until(condition):
    """Wait for it; a minute is for ever."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def on_disk(folder):
    """Bytes of all extents, also of those being written."""
    sizes = {}
    for place in (".aside/*", "*/*.*.*.*"):  # one may be renamed meanwhile
        for path in folder.glob(place):
            with suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(remote, "TRIES", 3)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT_S", 0.01)


@pytest.fixture
def web(tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    for i, tar in enumerate(TARS):
        (root / f"{i}.tar").write_bytes(tar)
    (root / "0.npy").write_bytes(b"rows")
    with web_server(root) as server:
        server.root = root
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.mark.parametrize("extents", [EXTENTS, WHOLE])
def test_what_is_read_is_right_and_comes_once(web, folder, extents):
    ours = make(web.url, folder)
    for extent in [*extents, *extents]:
        assert ours.read(extent, extent.offset + 7, 100) == right(extent, 7, 100)
        assert ours.read(extent, extent.offset, extent.size) == right(extent)
    assert sum(web.requests.values()) == len(extents)
    assert make(web.url, folder).read(extents[-1], extents[-1].offset, 5) == right(extents[-1], 0, 5)
    assert sum(web.requests.values()) == len(extents)
    assert not list((folder / ".aside").iterdir())


def test_what_is_read_may_be_changed(web, folder):
    ours = make(web.url, folder)
    for _ in range(2):
        data = ours.read(EXTENTS[0], 0, 10)
        assert isinstance(data, bytearray)
        data[:] = bytes(10)
    assert ours.read(EXTENTS[0], 0, 10) == right(EXTENTS[0], 0, 10)


def test_threads_share_transfers(web, folder):
    ours = [make(web.url, folder) for _ in range(2)]
    with ThreadPoolExecutor(16) as pool:
        for extent, data in zip(EXTENTS * 8, pool.map(lambda i: read_all(ours[i % 2], i), range(480)), strict=True):
            assert data == right(extent)
    assert sum(web.requests.values()) == len(EXTENTS)


def read_all(ours, i):
    extent = EXTENTS[i % len(EXTENTS)]
    return ours.read(extent, extent.offset, extent.size)


def process(code, *args):
    """A process of its own, which runs some code with everything of this file; its `args` are strings."""
    code = f"import sys; from tests.test_cache import *; args = sys.argv[1:]; {code}"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=Path(__file__).parents[1])


def read_shuffled(url, folder, seed):
    """Every extent in an order of one's own."""
    ours = make(url, Path(folder))
    for i in np.random.default_rng(int(seed)).permutation(len(EXTENTS)):
        assert read_all(ours, int(i)) == right(EXTENTS[i])


def test_processes_share_transfers(web, folder):
    both = [process("read_shuffled(*args)", web.url, folder, seed) for seed in (1, 2)]
    assert [one.wait() for one in both] == [0, 0]
    assert sum(web.requests.values()) == len(EXTENTS)
    assert sum(web.sent.values()) == sum(map(len, TARS))


def test_a_process_killed_in_the_middle_of_a_fetch_holds_up_nobody(web, folder):
    web.fail("/0.tar", "stall")
    killed = process("make(args[0], Path(args[1])).ensure(WHOLE[0])", web.url, folder)
    until(lambda: web.sent["/0.tar"])
    other = make(web.url, folder)  # cleans, and leaves alone what is being written
    assert len(list((folder / ".aside").iterdir())) == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.read, WHOLE[0], 5, 100)
        time.sleep(0.1)
        assert not waiting.done()
        killed.kill()
        killed.wait()
        assert waiting.result() == right(WHOLE[0], 5, 100)
    assert web.requests["/0.tar"] == 2
    make(web.url, folder)
    assert not list((folder / ".aside").iterdir())


# --- the limit


def test_what_is_needed_last_goes_first(web, folder):
    ours = make(web.url, folder, limit=10 * SIZE)
    for extent in EXTENTS[:10]:
        ours.ensure(extent)
    assert kept(folder) == {(0, run) for run in range(10)}
    ours.ensure(EXTENTS[40])
    assert kept(folder) == {(0, run) for run in range(9)} | {(2, 0)}
    reverse = make(web.url, folder, limit=10 * SIZE, next_use=lambda pairs: -in_sequence(pairs))
    reverse.ensure(EXTENTS[41])
    assert kept(folder) == {(0, run) for run in range(1, 9)} | {(2, 0), (2, 1)}


def test_a_tenth_of_the_limit_goes_at_once(web, folder):
    ours = make(web.url, folder, limit=40 * SIZE)
    for extent in EXTENTS[:41]:
        ours.ensure(extent)
    assert len(kept(folder)) == 37


def test_other_sets_go_first_and_the_oldest_of_them(web, folder):
    for name, extent in [("new", EXTENTS[0]), ("old", EXTENTS[1]), ("new", EXTENTS[2])]:
        other = make(web.url, folder, name=name)
        other.ensure(extent)
        other.whole("0.npy")
    for path in (folder / "old").iterdir():
        os.utime(path, (1, 1))
    ours = make(web.url, folder, limit=4 * SIZE)
    ours.ensure(EXTENTS[3])
    ours.ensure(EXTENTS[4])
    assert (kept(folder, "old"), len(kept(folder, "new")), len(kept(folder))) == (set(), 2, 2)
    for extent in EXTENTS[5:7]:
        ours.ensure(extent)
    assert (kept(folder, "new"), kept(folder)) == (set(), {(0, 3), (0, 4), (0, 5), (0, 6)})


@pytest.mark.parametrize("limit", [3, 25])
def test_the_limit_holds_at_every_moment(web, folder, limit):
    """For two sets with two threads each."""
    ours = [make(web.url, folder, limit * SIZE, name) for name in ("set", "other")]
    done, seen = threading.Event(), []

    def watch():
        while not done.is_set():
            with ours[0]._room.account_lock():  # else it grows while we look
                seen.append(on_disk(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        for extent, data in zip(EXTENTS * 4, pool.map(lambda i: read_all(ours[i % 2], i), range(240)), strict=True):
            assert data == right(extent)
    done.set()
    watcher.join()
    assert 0 < max(seen) <= limit * SIZE


@pytest.mark.parametrize("lie", [b"0", b"%d" % 10**15, b"no number", None])
def test_a_wrong_account_is_put_right(web, folder, lie):
    ours = make(web.url, folder, limit=10 * SIZE)
    for extent in EXTENTS[:5]:
        ours.ensure(extent)
    (folder / ".account").unlink() if lie is None else (folder / ".account").write_bytes(lie)
    for extent in EXTENTS[5:10]:
        ours.ensure(extent)
    assert len(kept(folder)) == 10
    for extent in EXTENTS[10:40]:
        ours.ensure(extent)
    assert on_disk(folder) <= (15 if lie == b"0" else 10) * SIZE


def test_an_extent_over_the_limit_is_read_without_the_cache(web, folder):
    said = []
    ours = make(web.url, folder, limit=SIZE - 1, report=said.append)
    for _ in range(2):
        for extent in (EXTENTS[3], WHOLE[1]):
            assert ours.read(extent, extent.offset + 50, 1000) == right(extent, 50, 1000)
    assert not kept(folder)
    assert said == [
        f"{folder}: {SIZE} bytes are over the limit of {SIZE - 1}; raise data.cache_bytes; read straight from {web.url}"
        " until there is room"
    ]


# --- wrong bytes


def test_wrong_bytes_are_fetched_once_more(web, folder):
    said = []
    ours = make(web.url, folder, report=said.append)
    for extent in (EXTENTS[1], WHOLE[1]):
        web.fail(f"/{extent.name}", "wrong")
        assert ours.read(extent, extent.offset, extent.size) == right(extent)
        assert said.pop() == f"{extent.name} at byte {extent.offset}: wrong; transferred again"
        assert web.requests[f"/{extent.name}"] == 2


@pytest.mark.parametrize("extents", [EXTENTS, WHOLE])
def test_where_the_store_is_wrong_the_sound_parts_are_read(web, folder, extents):
    said = []
    damaged = bytearray(TARS[0])
    damaged[50] ^= 1
    (web.root / "0.tar").write_bytes(damaged)
    ours = make(web.url, folder, report=said.append)
    for _ in range(3):
        assert ours.read(extents[0], 100, 100) == right(extents[0], 100, 100)
    assert ours.read(extents[0], 0, 100) == damaged[:100]
    assert said == [
        "0.tar at byte 0: wrong; transferred again",
        "0.tar at byte 0: wrong, again; its samples are looked at one by one",
    ]


@pytest.mark.parametrize("extents", [EXTENTS, WHOLE])
def test_where_a_shard_is_cut_what_is_left_is_read(web, folder, extents):
    (web.root / "0.tar").write_bytes(TARS[0][: SIZE // 2])
    ours = make(web.url, folder)
    for _ in range(2):
        assert ours.read(extents[0], 100, 100) == right(extents[0], 100, 100)
        with pytest.raises(ValueError, match=rf"{web.url}/0\.tar: ends before byte {SIZE // 2 + 10}"):
            ours.read(extents[0], SIZE // 2 - 10, 20)
    requests = web.requests["/0.tar"]
    with pytest.raises(ValueError, match="ends before"):
        ours.read(extents[0], SIZE // 2, 20)
    assert web.requests["/0.tar"] <= requests + 1  # known by now


@pytest.mark.parametrize("extents", [EXTENTS, WHOLE])
def test_a_shard_that_is_gone_is_said(web, folder, extents):
    (web.root / "0.tar").unlink()
    with pytest.raises(ValueError, match=rf"{web.url}/0\.tar: HTTP 404"):
        make(web.url, folder).read(extents[0], 0, 10)


def test_a_longer_tar_is_not_taken_for_ours(web, folder):
    said = []
    (web.root / "0.tar").write_bytes(TARS[1] + TARS[2])
    make(web.url, folder, report=said.append).ensure(WHOLE[0])
    assert all("wrong" in line for line in said)
    assert on_disk(folder) <= WHOLE[0].size


def test_a_file_that_the_disk_spoilt_is_healed_by_dropping_it(web, folder):
    ours = make(web.url, folder)
    ours.ensure(EXTENTS[0])
    (path,) = (folder / "set").iterdir()
    path.write_bytes(bytes(SIZE))
    assert ours.read(EXTENTS[0], 0, 10) == bytes(10)
    ours.drop(EXTENTS[0])
    ours.drop(EXTENTS[0])
    assert ours.read(EXTENTS[0], 0, 10) == right(EXTENTS[0], 0, 10)


@pytest.mark.parametrize("left", [0, 5, SIZE - 1])
def test_a_file_that_is_cut_is_fetched_again(web, folder, left):
    ours = make(web.url, folder)
    ours.ensure(EXTENTS[0])
    os.truncate(next((folder / "set").iterdir()), left)
    assert ours.read(EXTENTS[0], 0, SIZE) == right(EXTENTS[0])
    assert web.requests["/0.tar"] == 2


def test_a_store_that_is_down_is_said_and_cached_bytes_are_read(web, folder):
    ours = make(web.url, folder)
    ours.ensure(EXTENTS[0])
    web.fail("/0.tar", *[500] * 3)
    with pytest.raises(StoreError, match=rf"{web.url}/0\.tar: HTTP 500"):
        ours.read(EXTENTS[1], SIZE, 10)
    assert ours.read(EXTENTS[0], 0, 10) == right(EXTENTS[0], 0, 10)
    assert ours.read(EXTENTS[1], SIZE, 10) == right(EXTENTS[1], 0, 10)


def test_a_folder_that_is_tidied_away_comes_back(web, folder):
    ours = make(web.url, folder)
    ours.ensure(EXTENTS[0])
    subprocess.run(["rm", "-r", folder], check=True)
    assert ours.read(EXTENTS[0], 0, 10) == right(EXTENTS[0], 0, 10)
    assert kept(folder) == {(0, 0)}


def test_a_command_fills_the_cache_once(web, folder):
    ours = make(f"pipe:cat {web.root}/{{}}; echo >> {web.root}/runs", folder)
    for extent in WHOLE * 2:
        assert ours.read(extent, 1000, SIZE) == right(extent, 1000, SIZE)
    assert (web.root / "runs").read_text() == "\n" * len(WHOLE)


def test_a_command_that_ends_early_without_a_word_is_noticed(web, folder):
    said = []
    ours = make(f"pipe:echo >> {web.root}/runs; head -c 5000 {web.root}/{{}}", folder, report=said.append)
    assert ours.read(WHOLE[0], 1000, 100) == right(WHOLE[0], 1000, 100)
    with pytest.raises(ValueError, match=r"0\.tar: ends before byte 5100"):
        ours.read(WHOLE[0], 5000, 100)
    assert f"0.tar: 5000 bytes came of {SIZE * RUNS}; transferred again" in said[0]
    assert (web.root / "runs").read_text() == "\n\n"


# --- small files


def test_small_files_come_once_and_are_checked(web, folder):
    ours = make(web.url, folder, limit=SIZE)
    assert ours.whole("0.npy") == b"rows"
    assert make(web.url, folder, limit=SIZE).whole("0.npy", check=rows) == b"rows"
    assert web.requests["/0.npy"] == 1
    next((folder / "set").glob("small-*")).write_bytes(b"spoilt")
    assert ours.whole("0.npy", check=rows) == b"rows"
    assert web.requests["/0.npy"] == 2
    for extent in EXTENTS[:5]:
        ours.ensure(extent)
    assert ours.whole("0.npy") == b"rows"
    assert web.requests["/0.npy"] == 2


def rows(data):
    if data != b"rows":
        raise ValueError("no rows")


def test_small_files_that_are_wrong_or_missing_are_said(web, folder):
    said = []
    ours = make(web.url, folder, report=said.append)
    web.fail("/0.npy", "wrong")
    assert ours.whole("0.npy", check=rows) == b"rows"
    assert said == ["no rows; transferred again"]
    (web.root / "1.npy").write_bytes(b"else")
    with pytest.raises(ValueError, match="no rows"):
        ours.whole("1.npy", check=rows)
    with pytest.raises(ValueError, match=r"2\.npy: HTTP 404"):
        ours.whole("2.npy")


def test_who_checks_an_extent_may_ask_for_small_files(web, folder, monkeypatch):
    monkeypatch.setattr("p2p.data.room.STRIPES", 1)  # where all share one lock
    ours = Cache(open_store(web.url), folder, LIMIT, "set", lambda e, d: rows(ours.whole("0.npy")), in_sequence)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda e: ours.read(e, e.offset, SIZE), EXTENTS)) == list(map(right, EXTENTS))


# --- a disk that is full


def test_a_full_disk_makes_room_first_and_then_goes_without(web, tmp_path):
    """A real one: a memory file system of 16 extents, half of it taken by somebody else."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={16 * 12_288}", "none", mount]).returncode:
        pytest.skip("only root can mount a small disk; the test with a limit on files runs everywhere")
    try:
        full_disk(web, mount)
    finally:
        subprocess.run(["umount", mount], check=True)


def full_disk(web, mount):
    said = []
    (mount / "theirs").write_bytes(bytes(6 * 12_288))
    ours = make(web.url, mount / "cache", report=said.append)
    for extent in EXTENTS[:20]:
        assert ours.read(extent, extent.offset, SIZE) == right(extent)
    assert 4 <= len(kept(mount / "cache")) <= 10
    assert not said
    assert sum(web.requests.values()) == 20
    fill = f"exec dd if=/dev/zero bs=4096 2> /dev/null >> {mount}/theirs"
    assert subprocess.run(["sh", "-c", fill]).returncode == 1  # until there is no space left
    for extent in EXTENTS[20:40] + EXTENTS[:20]:
        assert ours.read(extent, extent.offset, SIZE) == right(extent)
    assert ours.whole("0.npy") == b"rows"
    subprocess.run(["rm", "-r", *(mount / "cache" / "set").iterdir()], check=True)
    (mount / "theirs").write_bytes(bytes(16 * 12_288 - 2 * 4096))
    for extent in EXTENTS[:20]:
        assert ours.read(extent, extent.offset, SIZE) == right(extent)
    assert [line.partition(": ")[2] for line in said] == [
        f"No space left on device; read straight from {web.url} until there is room"
    ]


def read_with_small_files(url, folder):
    """With a limit on the size of a file, which a disk full for big files is like."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 1, SIZE - 1))
    said = []
    ours = make(url, Path(folder), report=said.append)
    for extent in (EXTENTS[:5] + WHOLE) * 2:
        ours.ensure(extent)
        assert ours.read(extent, extent.offset + 5, 100) == right(extent, 5, 100)
    assert said == [f"{folder}: File too large; read straight from {url} until there is room"]
    assert not on_disk(Path(folder))


def test_files_that_may_not_grow_are_gone_without(web, folder):
    assert process("read_with_small_files(*args)", web.url, folder).wait() == 0


def test_a_disk_with_room_again_is_used_again(web, folder, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ours = make(web.url, folder)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 1, hard))
        assert ours.read(EXTENTS[0], 0, 10) == right(EXTENTS[0], 0, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ours.ensure(EXTENTS[0])
    assert not kept(folder)
    monkeypatch.setattr(ours, "_rest_until", 0.0)  # a minute later
    ours.ensure(EXTENTS[0])
    assert kept(folder) == {(0, 0)}


def test_other_errors_of_a_disk_are_not_hidden(web, folder):
    ours = make(web.url, folder)
    (folder / "set").rmdir()
    (folder / "set").write_bytes(b"")
    with pytest.raises(OSError, match="set"):
        ours.ensure(EXTENTS[0])


# --- ahead of the reader


class Noted:
    """Where extents are asked for in advance, and may be held up or fail."""

    def __init__(self):
        self.seen, self.errors, self.gate = [], {}, threading.Event()
        self.gate.set()

    def ensure(self, extent):
        self.seen.append(extent)
        self.gate.wait()
        if extent in self.errors:
            raise self.errors[extent]

    def until(self, count):
        until(lambda: len(self.seen) >= count)
        time.sleep(0.02)  # for what should not come
        return self.seen


def wanted(extents=EXTENTS, each=4):
    """Each extent at four positions side by side."""
    return ((i * each + j, extent) for i, extent in enumerate(extents) for j in range(each))


def test_ahead_keeps_the_order_and_the_budget():
    noted = Noted()
    fetcher = Ahead(noted, wanted(), budget=5 * SIZE, threads=1)
    assert noted.until(5) == EXTENTS[:5]
    fetcher.reached(3)  # the first is still wanted
    assert noted.until(5) == EXTENTS[:5]
    fetcher.reached(4)
    assert noted.until(6) == EXTENTS[:6]
    fetcher.reached(20)
    assert noted.until(10) == EXTENTS[:10]
    fetcher.reached(4 * len(EXTENTS))
    fetcher.close()
    assert len(noted.seen) == 10  # the rest was passed


def test_ahead_asks_for_each_once_and_again_when_it_comes_again():
    noted = Noted()
    fetcher = Ahead(noted, wanted(EXTENTS[:3] * 2, 1), budget=100 * SIZE, threads=1)
    assert noted.until(3) == EXTENTS[:3]
    fetcher.close()
    noted = Noted()
    fetcher = Ahead(noted, wanted(EXTENTS[:3] * 2, 1), budget=2 * SIZE, threads=1)
    for position in range(7):
        fetcher.reached(position)
        noted.until(min(position + 2, 6))
    fetcher.close()
    assert noted.seen == EXTENTS[:3] * 2


def test_ahead_takes_an_extent_over_the_budget_alone():
    noted = Noted()
    fetcher = Ahead(noted, wanted(WHOLE, 1), budget=1, threads=4)
    assert noted.until(1) == WHOLE[:1]
    fetcher.reached(1)
    assert noted.until(2) == WHOLE[:2]
    fetcher.close()


@pytest.mark.parametrize("error", [StoreError("down"), ValueError("wrong")])
def test_ahead_goes_on_after_an_error_and_rests(error, monkeypatch):
    monkeypatch.setattr(ahead, "REST_S", 0.05)
    noted = Noted()
    noted.errors = dict.fromkeys(EXTENTS[:3], error)
    fetcher = Ahead(noted, wanted(EXTENTS[:10]), budget=LIMIT, threads=1)
    before = time.monotonic()
    assert noted.until(10) == EXTENTS[:10]
    assert time.monotonic() - before >= 0.15
    fetcher.close()


@pytest.mark.parametrize("stuck", [True, False])
def test_ahead_ends_while_it_waits(stuck):
    noted = Noted()
    if stuck:
        noted.gate.clear()  # a store that does not answer
    fetcher = Ahead(noted, wanted(), budget=2 * SIZE, threads=3)
    noted.until(2)
    fetcher.close()
    noted.gate.set()
    for thread in fetcher._threads:
        thread.join()
    assert len(noted.seen) == 2


def test_ahead_does_not_hold_up_the_reader():
    """A sequence that takes its time, as where the rows of a shard have to be fetched."""
    going, entered = threading.Event(), threading.Event()

    def slow():
        entered.set()
        going.wait()
        yield 0, EXTENTS[0]

    fetcher = Ahead(Noted(), slow(), budget=SIZE, threads=2)
    entered.wait()
    fetcher.reached(5)
    going.set()
    fetcher.close()


def test_ahead_fills_the_cache_for_the_reader(web, folder):
    now = 0

    def next_use(pairs):
        number = in_sequence(pairs)
        return np.where(number < now, number + len(EXTENTS), number)

    ours = make(web.url, folder, limit=12 * SIZE, next_use=next_use)
    fetcher = Ahead(ours, wanted(), budget=8 * SIZE)
    for position, extent in wanted():
        now = position // 4
        fetcher.reached(position)
        until(lambda extent=extent: (extent.shard, extent.run) in kept(folder))
        assert ours.read(extent, extent.offset, SIZE) == right(extent)
    fetcher.close()
    assert sum(web.requests.values()) == len(EXTENTS)
