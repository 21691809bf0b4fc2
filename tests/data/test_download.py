"""Downloads over a connection that fails, from servers that change; archives that want harm."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import stat
import threading
import zipfile
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nhzoo.data import download as fetch
from nhzoo.data.download import unzip
from nhzoo.errors import InputError

DATA = np.random.default_rng(0).bytes(3_000_000)
OTHER = np.random.default_rng(1).bytes(3_000_000)
download = partial(fetch.download, pause=0.01, timeout=20)


@dataclass
class Site:
    """What the server serves, and how badly."""

    url: str = ""
    data: bytes = DATA
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    if_range: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes sent before the connection is cut
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    length: bool = True
    wrong_range: bool = False
    asked: list[str | None] = field(default_factory=list)  # the Range of each request


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self):
        site = self.site
        wanted = self.headers.get("Range")
        site.asked.append(wanted)
        if site.statuses:
            status = site.statuses.pop(0)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        same = self.headers.get("If-Range") in (site.etag, site.modified, None)
        if wanted and site.ranges and (same or not site.if_range):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(site.data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(site.data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            shown = start + 7 * site.wrong_range
            end = len(site.data) - 1
            self.send_header("Content-Range", f"bytes {shown}-{end}/{len(site.data)}")
        else:
            self.send_response(200)
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        body = site.data[start:]
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if site.cuts:
            body = body[: site.cuts.pop(0)]
        with contextlib.suppress(OSError):
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site():
    found = Site()
    handler = type("SiteHandler", (Handler,), {"site": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/set.zip"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def fails(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as error:
        download(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_a_download(site, tmp_path):
    path = tmp_path / "new" / "set.zip"
    seen = []
    digest = hashlib.sha256(DATA).hexdigest()
    assert download(site.url, path, len(DATA), digest, progress=lambda *p: seen.append(p)) == path
    assert path.read_bytes() == DATA
    assert os.listdir(path.parent) == ["set.zip"]
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    download(site.url, path, len(DATA), digest)
    assert len(site.asked) == 1  # what is there is not fetched again
    path.write_bytes(DATA[:-1])
    download(site.url, path, len(DATA))
    assert path.read_bytes() == DATA


def test_a_lost_connection_goes_on_where_it_was(site, tmp_path):
    site.cuts = [1_000_000, 700_000, 0, 0, 5]
    path = tmp_path / "set.zip"
    download(site.url, path, tries=4)
    assert path.read_bytes() == DATA
    starts = [int(wanted[6:-1]) for wanted in site.asked[1:]]
    assert starts == [1_000_000, 1_700_000, 1_700_000, 1_700_000, 1_700_005]


def test_it_gives_up_and_a_later_call_goes_on(site, tmp_path):
    site.cuts = [1_000_000, 0, 0]
    path = tmp_path / "set.zip"
    fails("connection was lost after 1,000,000 bytes.*run again", site.url, path, tries=3)
    assert not path.exists()
    download(site.url, path)
    assert site.asked[-1] == "bytes=1000000-"
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["set.zip"]


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"one"', None), (None, "Mon, 06 Jan 2020 00:00:00 GMT"), ('W/"one"', None), (None, None)],
)
@pytest.mark.parametrize("if_range", [True, False])
def test_a_changed_file_is_not_glued_to_an_old_half(site, tmp_path, etag, modified, if_range):
    site.etag, site.modified, site.if_range = etag, modified, if_range
    site.cuts = [1_000_000]
    path = tmp_path / "set.zip"
    fails("lost", site.url, path, tries=1)
    site.data = OTHER
    if etag:
        site.etag = etag.replace("one", "two")
    if modified:
        site.modified = modified.replace("06", "07")
    download(site.url, path)
    assert path.read_bytes() == OTHER
    if not if_range and (etag == '"one"' or modified):
        assert site.asked[1:] == ["bytes=1000000-", None]
    else:
        assert len(site.asked) == 2  # it is the server that compares


def test_another_address_is_not_glued_either(site, tmp_path):
    site.cuts = [1_000_000]
    path = tmp_path / "set.zip"
    fails("lost", site.url + "?a", path, tries=1)
    site.data = OTHER
    download(site.url + "?b", path)
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize("fault", ["ranges", "wrong_range"])
def test_a_server_that_cannot_go_on_starts_anew(site, tmp_path, fault):
    site.cuts = [1_000_000]
    if fault == "ranges":
        site.ranges = False
    else:
        site.wrong_range = True
    path = tmp_path / "set.zip"
    download(site.url, path)
    assert path.read_bytes() == DATA


def test_a_server_without_ranges_that_always_cuts_ends_the_download(site, tmp_path):
    site.ranges = False
    site.cuts = [900_000, 500_000, 800_000, 100_000, 999_000] + [10_000] * 9
    fails("was lost", site.url, tmp_path / "set.zip", tries=4)
    assert len(site.asked) == 4  # starting anew gains nothing until it gets further


def test_a_half_that_is_whole_or_too_long(site, tmp_path):
    path = tmp_path / "set.zip"
    site.cuts = [2_999_999]
    fails("lost", site.url, path, tries=1)
    part = tmp_path / "set.zip.part"
    part.write_bytes(DATA)  # killed between the last byte and the rename
    download(site.url, path)
    assert path.read_bytes() == DATA and site.asked[-1] == "bytes=3000000-"
    path.unlink()
    site.cuts = [5]
    fails("lost", site.url, path, tries=1)
    part.write_bytes(DATA + b"more")
    download(site.url, path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_said_at_once(site, tmp_path, status):
    site.statuses = [status] * 9
    fails(f"the server says {status} .*check the address", site.url, tmp_path / "set.zip")
    assert len(site.asked) == 1
    assert os.listdir(tmp_path) == []


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.statuses = [503, 429]
    assert download(site.url, tmp_path / "set.zip").read_bytes() == DATA
    site.statuses = [503] * 9
    fails("503 Service Unavailable", site.url, tmp_path / "other.zip", tries=2)


def test_redirects_stay_on_the_web(site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = tmp_path / "got"
    for location in (f"file://{secret}", f"ftp://127.0.0.1/{secret}"):
        site.statuses, site.location, site.asked = [302] * 3, location, []
        fails("leads elsewhere .*unsupported protocol", site.url, path, tries=2)
        assert not path.exists() and len(site.asked) == 1  # a second try would lead there too
    site.statuses, site.location = [302] * 30, site.url
    fails("without end", site.url, path, tries=2)
    assert len(site.statuses) == 10
    site.statuses = []
    for url in (f"file://{secret}", "ftp://127.0.0.1/x", "set.zip", ""):
        fails("only http and https", url, path)
    fails("Invalid IPv6 URL", "http://[", path)
    site.statuses, site.location = [302], site.url
    assert download(site.url, path).read_bytes() == DATA


def test_a_refused_connection(tmp_path):
    import socket

    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/set.zip"
        fails("no connection .*refused", url, tmp_path / "set.zip", tries=2)
    fails("no connection", "http://127.0.0.1:1:2/", tmp_path / "set.zip", tries=1)


def test_sizes_and_hashes(site, tmp_path):
    path = tmp_path / "set.zip"
    fails("has 3,000,000 bytes, 2,999,999 are expected", site.url, path, 2_999_999)
    fails("3,000,000 bytes, at most 10 are expected", site.url, path, limit=10)
    site.length = False
    fails("more than the 2,999,999 bytes", site.url, path, 2_999_999)
    fails("more than the 10 bytes", site.url, path, limit=10)
    fails("3,000,000 bytes came, 3,000,001 are expected", site.url, path, 3_000_001)
    fails("SHA-256 is not 0{64}", site.url, path, sha256="0" * 64)
    assert os.listdir(tmp_path) == []
    download(site.url, path)
    assert path.read_bytes() == DATA


def test_a_full_disk(site, tmp_path, monkeypatch):
    path = tmp_path / "set.zip"
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
        patch.setattr(shutil, "disk_usage", lambda folder: usage)
        fails("3,000,000 more bytes are needed and 1,000 are free", site.url, path)

    def full(done, total):
        if done > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    fails("the disk is full.*run again", site.url, path, progress=full)
    download(site.url, path)
    assert path.read_bytes() == DATA
    (tmp_path / "file").touch()
    fails("cannot be written", site.url, tmp_path / "file" / "set.zip")


def test_two_downloads_of_one_file(site, tmp_path):
    path = tmp_path / "set.zip"
    with open(tmp_path / "set.zip.part", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(b"x")
        held.flush()
        fails("another process is downloading", site.url, path)


# Archives


def archive(path: Path, entries: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, data in entries.items():
            opened.writestr(name, data)
    return path


GOOD = {"set/a/one": b"1" * 5_000, "set/b/two": b"", "three": b"333"}


def refused(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as error:
        unzip(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_unpacking(tmp_path):
    path = archive(tmp_path / "x.zip", GOOD)
    with zipfile.ZipFile(path, "a") as opened:
        opened.mkdir("empty")
    seen = []
    out = tmp_path / "out"
    written = unzip(path, out, progress=lambda *p: seen.append(p))
    assert written == [out / name for name in GOOD]
    assert {name: (out / name).read_bytes() for name in GOOD} == GOOD
    assert seen == [(5_000, 5_003), (5_000, 5_003), (5_003, 5_003)]


def test_unpacking_goes_on_and_repairs(tmp_path):
    path = archive(tmp_path / "x.zip", GOOD)
    out = tmp_path / "out"
    unzip(path, out)
    kept = (out / "three").stat().st_ino
    (out / "set/a/one").write_bytes(b"2" * 5_000)
    (out / "set/b/two").unlink()
    (out / "set/a/.one.abc.tmp").write_bytes(b"left by a kill")
    unzip(path, out)
    assert {name: (out / name).read_bytes() for name in GOOD} == GOOD
    assert (out / "three").stat().st_ino == kept
    assert os.listdir(out / "set/a") == ["one"]


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "a/./b", "a//b", "..", "a\\..\\x", "a\nb", "./x"]
)
def test_names_that_leave_the_folder(tmp_path, name):
    path = archive(tmp_path / "x.zip", {"good": b"1", name: b"2"})
    refused("not a name inside a folder", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def special(path: Path, mode: int, data: bytes = b"/etc") -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("good", b"1")
        entry = zipfile.ZipInfo("link")
        entry.external_attr = mode << 16
        opened.writestr(entry, data)
    return path


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFCHR])
def test_links_and_devices(tmp_path, kind):
    refused("link or device", special(tmp_path / "x.zip", kind | 0o777), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_that_are_there_already(tmp_path):
    path = archive(tmp_path / "x.zip", {"a/b": b"1"})
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "a").symlink_to(elsewhere)
    refused("points outside", path, out)
    refused("points outside", archive(tmp_path / "y.zip", {"a": b"1"}), out)
    assert not list(elsewhere.iterdir())


def test_too_much(tmp_path):
    path = archive(tmp_path / "x.zip", {"bomb": bytes(20_000_000), "b": b""})
    assert path.stat().st_size < 100_000
    refused(
        "holds 2 files of 20,000,000 bytes; at most", path, tmp_path / "o", max_bytes=19_999_999
    )
    refused("at most 1 files", path, tmp_path / "o", max_files=1)
    assert not (tmp_path / "o").exists()


def test_an_entry_that_is_longer_than_it_says(tmp_path):
    path = archive(tmp_path / "x.zip", {"bomb": bytes(1_000_000)})
    data = path.read_bytes()
    size = (1_000_000).to_bytes(4, "little")
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (1_000).to_bytes(4, "little")))
    refused("not a sound zip archive", path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*bomb*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_clash(tmp_path):
    path = archive(tmp_path / "x.zip", {"a": b"1"})
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("a", b"2")
    refused("in it twice", path, tmp_path / "out")
    refused(
        "a file and a folder",
        archive(tmp_path / "y.zip", {"a": b"", "a/b": b""}),
        tmp_path / "out",
    )


def test_what_is_no_archive(tmp_path):
    refused("no such file", tmp_path / "x.zip", tmp_path)
    (tmp_path / "x.zip").write_text("<Error><Code>AccessDenied</Code></Error>")
    refused("not a sound zip archive", tmp_path / "x.zip", tmp_path)
    good = archive(tmp_path / "y.zip", GOOD).read_bytes()
    (tmp_path / "y.zip").write_bytes(good[:-30])
    refused("not a sound zip archive", tmp_path / "y.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as opened:
        opened.writestr("a", b"1")
        opened.filelist[0].flag_bits |= 1
    refused("encrypted", tmp_path / "y.zip", tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), max_size=3),
    st.integers(0, 400),
)
@example([], 0)
@example([(244, b"\0")], 0)  # an entry without a name
def test_damaged_archives_write_what_they_say_or_are_refused(tmp_path, changes, cut):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in GOOD.items():
            opened.writestr(name, data)
    data = bytearray(buffer.getvalue())
    for at, text in changes:
        at %= len(data)
        data[at : at + len(text)] = text
    (tmp_path / "x.zip").write_bytes(data[: len(data) - cut] if cut < 200 else data)
    out = tmp_path / "deep" / "out"
    shutil.rmtree(tmp_path / "deep", ignore_errors=True)
    try:
        written = unzip(tmp_path / "x.zip", out, max_bytes=10_000_000)
    except InputError:
        written = []
    for path in written:
        assert out in path.parents and path.is_file() and not path.is_symlink()
    assert sorted(os.listdir(tmp_path)) in (["deep", "x.zip"], ["x.zip"])
    assert not (tmp_path / "deep").exists() or os.listdir(tmp_path / "deep") == ["out"]
