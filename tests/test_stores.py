"""Stores, against real servers that fail in every way we know: what comes is right, or the error says where and why."""

import os
import socket
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from p2p.data import remote
from p2p.data.format import newest_generation
from p2p.data.stores import PIECE, StoreError, is_remote, open_store
from tests.servers import s3_server, web_server

SMALL = b'{"small": 1}'
BIG = np.random.default_rng(0).bytes(3 * PIECE + 12_345)
SPACED = "sub dir/a+b%20&c#d.tar"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """The same tries with short waits."""
    monkeypatch.setattr(remote, "TRIES", 4)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT_S", 0.01)


def impatient(monkeypatch, why):
    """Where something stalls: without patience."""
    if "stall" in why or "sleep" in why:
        monkeypatch.setattr(remote, "READ_TIMEOUT_S", 0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    (root / "sub dir").mkdir()
    (root / "index.json").write_bytes(SMALL)
    (root / "big.tar").write_bytes(BIG)
    (root / "empty.tar").write_bytes(b"")
    (root / SPACED).write_bytes(b"spaced")
    return root


@pytest.fixture
def web(folder):
    with web_server(folder) as server:
        yield server


@pytest.fixture
def plain(folder):
    with web_server(folder, ranges=False) as server:
        yield server


@pytest.fixture(scope="module")
def s3(folder):
    with s3_server("bucket") as known:
        yield known


@pytest.fixture(params=["local", "web", "s3", "memory"])
def store(request, folder, monkeypatch):
    """One of each kind that has parts, with the same files."""
    if request.param == "local":
        return open_store(folder)
    if request.param == "web":
        return open_store(request.getfixturevalue("web").url)
    if request.param == "s3":
        monkeypatch.setitem(fsspec.config.conf, "s3", request.getfixturevalue("s3"))
    filled = open_store({"s3": "s3://bucket/set", "memory": "memory://set"}[request.param])
    for path in folder.rglob("*.*"):
        filled.put(str(path.relative_to(folder)), path)
    return filled


def test_every_store_reads_the_same(store):
    assert store.seekable
    assert store.read("index.json") == SMALL
    assert store.read(SPACED) == b"spaced"
    assert b"".join(store.chunks("big.tar")) == BIG
    assert b"".join(store.chunks("empty.tar")) == b""
    assert (store.size("big.tar"), store.size(SPACED)) == (len(BIG), 6)
    for first, size in [(0, 1), (0, len(BIG)), (len(BIG) - 1, 1), (1234, PIECE + 1), (len(BIG) - 77, 77)]:
        assert store.part("big.tar", first, size) == BIG[first : first + size]


def test_every_store_says_what_is_not_there(store):
    with pytest.raises(FileNotFoundError, match=r"missing\.tar"):
        store.read("missing.tar")
    with pytest.raises(FileNotFoundError, match=r"missing\.tar"):
        store.part("missing.tar", 0, 1)
    with pytest.raises(FileNotFoundError, match=r"missing\.tar"):
        next(iter(store.chunks("missing.tar")))
    with pytest.raises(FileNotFoundError, match=r"missing\.tar"):
        store.size("missing.tar")
    assert newest_generation(store) == 0


@pytest.mark.parametrize("first", [len(BIG) - 5, len(BIG), len(BIG) + 5])
def test_every_store_says_that_a_file_is_too_short(store, first):
    with pytest.raises(ValueError, match=rf"big\.tar: ends before byte {first + 10}"):
        store.part("big.tar", first, 10)


def test_what_is_put_is_there(store, tmp_path, folder):
    if store.url.startswith("http"):
        pytest.skip("a web server cannot be written to")
    (tmp_path / "new").write_bytes(BIG)
    store.put("deep/er/new.tar", tmp_path / "new")
    try:
        assert store.part("deep/er/new.tar", 5, 7) == BIG[5:12]
        (tmp_path / "new").write_bytes(SMALL)
        store.put("deep/er/new.tar", tmp_path / "new")
        assert store.read("deep/er/new.tar") == SMALL
    finally:
        (folder / "deep/er/new.tar").unlink(missing_ok=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "pipe:cat {}"])
def test_some_stores_cannot_be_written(url, folder):
    with pytest.raises(ValueError, match="cannot be written to; write to a folder or an object store"):
        open_store(url).put("new.tar", folder / "big.tar")


# --- the web


FAULTS = [500, 503, 429, 408, "drop", "break", "short", "stall", "long"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_web_server_heals(web, fault, monkeypatch):
    impatient(monkeypatch, str(fault))
    said = []
    store = open_store(web.url, said.append)
    web.fail("/big.tar", fault, fault)
    assert store.part("big.tar", 1000, 5000) == BIG[1000:6000]
    web.fail("/index.json", fault)
    assert store.read("index.json") == SMALL
    assert len(said) == 3
    assert all(line.startswith(f"{web.url}/big.tar: ") and "\n" not in line for line in said[:2])
    assert "; try 2 of 4 in " in said[0]
    assert "; try 3 of 4 in " in said[1]


@pytest.mark.parametrize("fault", ["cut", "shift"])
def test_a_part_is_the_one_that_was_asked_for(web, fault):
    web.fail("/big.tar", fault)
    assert open_store(web.url).part("big.tar", 1000, 5000) == BIG[1000:6000]
    assert web.requests["/big.tar"] == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (500, "HTTP 500 Internal Server Error"),
        (503, "HTTP 503 Service Unavailable"),
        (429, "HTTP 429 Too Many Requests"),
        ("drop", "Remote end closed connection"),
        ("break", "onnection"),
        ("short", "2500 bytes read, 2500 more expected"),
        ("stall", "[Tt]imed out"),
        ("long", "5000 bytes read, 10 more expected"),
        ("cut", "4990 bytes from 1000 on came instead of 5000"),
    ],
)
def test_a_web_server_that_does_not_heal_is_named(web, fault, reason, monkeypatch):
    impatient(monkeypatch, str(fault))
    web.fail("/big.tar", *[fault] * 4)
    with pytest.raises(StoreError, match=rf"^{web.url}/big\.tar: .*{reason}.* \(after 4 tries\)$"):
        open_store(web.url).part("big.tar", 1000, 5000)
    assert web.requests["/big.tar"] == 4


@pytest.mark.parametrize("status", [400, 401, 403, 451])
def test_a_refusal_is_not_repeated(web, status):
    web.fail("/big.tar", status)
    with pytest.raises(StoreError, match=rf"^{web.url}/big\.tar: HTTP {status} "):
        open_store(web.url).part("big.tar", 0, 1)
    assert web.requests["/big.tar"] == 1


def test_gone_is_as_missing(web):
    web.fail("/big.tar", 410)
    with pytest.raises(FileNotFoundError, match="HTTP 410"):
        open_store(web.url).read("big.tar")


def test_a_server_that_is_down_is_named():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(StoreError, match=rf"^{url}/index\.json: .*refused \(after 4 tries\)$"):
            open_store(url).read("index.json")


@pytest.mark.parametrize("faults", [["break"] * 6, ["short"] * 6, ["stall", 500, "short"]])
def test_a_stream_that_breaks_goes_on_where_it_broke(web, faults, monkeypatch):
    impatient(monkeypatch, faults)
    web.fail("/big.tar", *faults)  # more than there are tries, but each time it gets further
    assert b"".join(open_store(web.url).chunks("big.tar")) == BIG
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in web.ranges["/big.tar"] if r]
    assert len(starts) == len(faults)
    assert starts == sorted(starts)
    assert web.sent["/big.tar"] == len(BIG) or "break" in faults  # a reset may lose what was on its way


def test_a_stream_that_gets_no_further_ends(web):
    web.fail("/big.tar", "break", 500, "drop", 503, 500)
    with pytest.raises(StoreError, match=r"big\.tar: .*\(after 4 tries\)"):
        list(open_store(web.url).chunks("big.tar"))


def test_a_server_without_ranges_is_known_before(plain):
    store = open_store(plain.url)
    assert not store.seekable
    assert not store.seekable
    assert plain.requests == {"/index.json": 1}
    assert store.read("index.json") == SMALL
    assert store.size("big.tar") == len(BIG)
    with pytest.raises(StoreError, match=r"big\.tar: .*no ranges"):
        store.part("big.tar", 5, 5)


def test_a_root_without_an_index_shows_its_ranges_by_any_size(plain, web, tmp_path):
    for server, ranges in ((plain, False), (web, True)):
        store = open_store(server.url + "/sub dir")
        store.size("a+b%20&c#d.tar")
        assert store.seekable == ranges


def test_a_stream_without_ranges_starts_again(plain):
    plain.fail("/big.tar", "break", "short", 500)
    assert b"".join(open_store(plain.url).chunks("big.tar")) == BIG
    assert plain.requests["/big.tar"] == 4


def test_a_redirect_is_followed(web):
    store = open_store(f"{web.url}/moved")
    assert store.part("big.tar", 10, 10) == BIG[10:20]
    assert b"".join(store.chunks("big.tar")) == BIG
    assert web.requests["/big.tar"] == 2


def test_redirects_in_a_circle_end(web):
    with pytest.raises(StoreError, match="redirect"):
        open_store(f"{web.url}/circle").read("index.json")


def test_names_are_encoded(web):
    assert open_store(web.url).read(SPACED) == b"spaced"
    assert dict(web.requests) == {"/sub%20dir/a%2Bb%2520%26c%23d.tar": 1}


def test_connections_are_used_again(web):
    store = open_store(web.url)
    ports = set()
    handle = web.server.RequestHandlerClass

    def seen(request, address, server):
        ports.add(address)
        return handle(request, address, server)

    web.server.RequestHandlerClass = seen
    for i in range(20):
        store.part("big.tar", i, 100_000)
    assert len(ports) == 1


def test_the_systems_proxy_is_used(web, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.setenv("no_proxy", "")
    assert open_store("http://nowhere.invalid").part("big.tar", 3, 4) == BIG[3:7]
    assert web.proxied == ["http://nowhere.invalid/big.tar"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert open_store(web.url).read("index.json") == SMALL
    assert len(web.proxied) == 1


@pytest.mark.parametrize("url", ["http://", "https:///set", "http://h/set?key=1", "http://h/set#x", "http://a:b@h/set"])
def test_an_unusable_address_is_refused(url):
    with pytest.raises(ValueError, match="give https://HOST/FOLDER"):
        open_store(url)


# --- object stores


def test_an_endpoint_comes_from_the_environment(s3, monkeypatch, folder):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3["secret"])
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    store = open_store("s3://bucket/environment")
    store.put("index.json", folder / "index.json")
    assert store.read("index.json") == SMALL
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_object_store_that_fails_is_tried_again_and_named(folder, monkeypatch):
    """Through fsspec's own web client, whose server fails on order."""
    said = []
    with web_server(folder) as web:
        store = remote.Fsspec(web.url, said.append)
        web.fail("/big.tar", 500, 500)
        assert store.part("big.tar", 7, 7) == BIG[7:14]
        assert said
        web.fail("/big.tar", *[500] * 20)
        with pytest.raises(StoreError, match=rf"{web.url}/big\.tar: .*500.* \(after 4 tries\)"):
            store.part("big.tar", 7, 7)


def test_a_stream_of_an_object_store_goes_on_where_it_broke(folder):
    with web_server(folder) as web:
        store = remote.Fsspec(web.url, lambda line: None)
        stream = store.chunks("big.tar")
        first = next(stream)
        web.fail("/big.tar", 500, 500)
        assert first + b"".join(stream) == BIG


def test_a_refusal_of_an_object_store_is_not_repeated(tmp_path):
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "secret").chmod(0)
    said = []
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root is refused nothing
    try:
        with pytest.raises(StoreError, match=r"secret: .*[Dd]enied"):
            open_store(f"file://{tmp_path}", said.append).read("secret")
    finally:
        os.seteuid(user)
    assert not said


def test_missing_credentials_are_said_at_once(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": s3["endpoint_url"]})
    said = []
    with pytest.raises(StoreError, match=r"^s3://bucket/set/index\.json: Unable to locate credentials$"):
        open_store("s3://bucket/set", said.append).read("index.json")
    assert not said


def test_s3_says_what_it_refuses(monkeypatch, s3):
    monkeypatch.setitem(fsspec.config.conf, "s3", s3)
    with pytest.raises((FileNotFoundError, StoreError), match=r"s3://nobucket/set/index\.json"):
        open_store("s3://nobucket/set").read("index.json")


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("gs://b/x", "gcsfs", "gs"), ("hf://datasets/a/b", "huggingface_hub", "hf")]
)
def test_a_missing_package_is_named_with_its_remedy(url, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(ValueError, match=rf"{package}.*; pip install 'p2p\[{extra}\]'"):
        open_store(url)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="nope://x: Protocol not known: nope; give a folder"):
        open_store("nope://x")


# --- commands


def test_a_command_is_read_as_a_whole(folder):
    store = open_store(f"pipe:cat {folder}/{{}}")
    assert not store.seekable
    assert store.read("index.json") == SMALL
    assert store.size("big.tar") is None
    assert b"".join(store.chunks("big.tar")) == BIG
    with pytest.raises(StoreError, match="as a whole"):
        store.part("big.tar", 0, 1)


@pytest.mark.parametrize(
    "name", ["a b.tar", "'; touch OWNED; '.tar", "$(touch OWNED).tar", '"`touch OWNED`".tar', "-n"]
)
def test_a_hostile_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"content")
    assert open_store("pipe:cat -- {}").read(name) == b"content"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_file_of_a_command_costs_no_long_retries(folder, tmp_path):
    said = []
    store = open_store(f"pipe:echo tried >> {tmp_path}/tries; cat {folder}/{{}} 2> /dev/null", said.append)
    with pytest.raises(FileNotFoundError, match=r"cat .*/index-1\.json.*: exit status 1 after 0 bytes"):
        store.read("index-1.json")
    assert (tmp_path / "tries").read_text().count("tried") == 2
    assert newest_generation(store) == 0
    assert said == []  # there is no fault


def test_a_missing_file_in_a_pipeline_is_one_that_prints_nothing(folder):
    store = open_store(f"pipe:cat {folder}/{{}} 2> /dev/null | cat")
    with pytest.raises(FileNotFoundError, match="prints nothing"):
        store.read("index-1.json")


def flaky(tmp_path: Path, folder: Path, failure: str, times: int) -> str:
    """A command that fails so often, then works."""
    script = tmp_path / "flaky.sh"
    script.write_text(
        f"echo >> {tmp_path}/runs\n"
        f"if [ $(wc -l < {tmp_path}/runs) -le {times} ]; then {failure}; fi\n"
        f'exec cat "{folder}/$1"\n'
    )
    return f"pipe:sh {script} {{}}"


HALF = "head -c 2000000 {folder}/big.tar"


@pytest.mark.parametrize("failure", ["exit 3", f"{HALF}; exit 3", f"{HALF}; kill -9 $$", f"{HALF}; exec sleep 9"])
def test_a_command_that_fails_is_run_again_and_goes_on_where_it_ended(tmp_path, folder, failure, monkeypatch):
    impatient(monkeypatch, failure)
    said = []
    store = open_store(flaky(tmp_path, folder, failure.format(folder=folder), 2), said.append)
    assert b"".join(store.chunks("big.tar")) == BIG
    assert len(said) == 2


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (f"{HALF}; exit 3", "exit status 3 after 2000000 bytes"),
        (f"{HALF}; kill -9 $$", "exit status (-9|137) after 2000000 bytes"),
        (f"{HALF}; exec sleep 9", "silent for 0.4 s after 2000000 bytes"),
    ],
)
def test_a_command_that_keeps_failing_is_named(tmp_path, folder, failure, reason, monkeypatch):
    impatient(monkeypatch, failure)
    store = open_store(flaky(tmp_path, folder, failure.format(folder=folder), 9))
    with pytest.raises(StoreError, match=rf"^pipe:sh .*flaky\.sh big\.tar: {reason} \(after 4 tries\)$"):
        list(store.chunks("big.tar"))


def test_a_command_that_does_not_end_is_named(monkeypatch):
    impatient(monkeypatch, "sleep")
    with pytest.raises(StoreError, match=r"^pipe:echo x.tar; .*: does not end after 6 bytes \(after 4 tries\)$"):
        list(open_store("pipe:echo {}; exec 1>&-; sleep 9").chunks("x.tar"))


def test_a_command_needs_a_place_for_the_name():
    with pytest.raises(ValueError, match=r"pipe:cat x: lacks \{\}"):
        open_store("pipe:cat x")


# --- a folder


def test_what_is_a_url():
    assert all(map(is_remote, ["http://a/b", "https://a", "s3://b/c", "pipe:cat {}", "memory://a"]))
    assert not any(map(is_remote, ["a/b", "/a/b", Path("a"), "a:b", ""]))
