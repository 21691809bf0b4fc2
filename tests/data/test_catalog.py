"""Datasets by name: what is bundled, what was added, what is fetched, and what is only a folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nhzoo.agents.base import RandomAgent
from nhzoo.data import catalog, packed_set, packing
from nhzoo.data.catalog import Source, add, data_folder, list_sources, open_demonstrations, splits
from nhzoo.data.nld import NldFolder
from nhzoo.data.packed_set import PackedSet
from nhzoo.data.traces import TraceSet, bundled_names, open_traces
from nhzoo.data.ttyrec import write_ttyrec
from nhzoo.errors import InputError
from nhzoo.evaluation.evaluator import evaluate

BUNDLED = "autoascend-monk-v1"


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NHZOO_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def nle_data(small_set, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nld") / "nle_data"
    write_ttyrec(open_traces(small_set).traces[0], folder)
    return folder


@pytest.fixture
def zipped(nle_data) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for path in sorted(nle_data.rglob("*.*")):
            opened.write(path, f"nld-aa-taster/nle_data/{path.relative_to(nle_data)}")
        opened.writestr("nld-aa-taster/README", "text")
    return buffer.getvalue()


@pytest.fixture
def site():
    """Serves `site.data` whole; `site.asked` counts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            self.send_response(200 if server.data else 403)
            self.send_header("Content-Length", str(len(server.data)))
            self.end_headers()
            self.wfile.write(server.data)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.data, server.asked = b"", 0
    server.url = f"http://127.0.0.1:{server.server_port}/x.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as error:
        add(*args, **kwargs)
    assert "\n" not in str(error.value)


def entries() -> list[str]:
    return sorted(path.name for path in (data_folder() / "datasets").glob("*"))


def test_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NHZOO_DATA", "/a")
    assert data_folder() == Path("/a")
    monkeypatch.delenv("NHZOO_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", "/b")
    assert data_folder() == Path("/b/nhzoo")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert data_folder() == Path("/c/.local/share/nhzoo")


def test_all_kinds_are_added_listed_and_opened(small_set, nle_data, tmp_path):
    report = packing.pack(small_set, workers=1, cache=tmp_path / "cache")
    packed = tmp_path / "packed"
    packed_set.export("small", report.exportable, packed)
    lengths = [trace.length for trace in open_traces(small_set).traces]
    assert add(small_set) == Source("small", "traces", small_set, 4, sum(lengths))
    assert add(nle_data, "aa") == Source("aa", "nld-aa", nle_data, 1, None)
    assert add(packed, "packed") == Source("packed", "packed", packed, 4, sum(lengths))
    listed = list_sources()
    bundled = [source for source in listed if source.bundled]
    assert [source.name for source in bundled] == bundled_names()
    assert {source.kind for source in bundled} == {"traces"}
    assert listed[len(bundled) :] == [add(nle_data, "aa"), add(packed, "packed"), add(small_set)]
    opened = open_demonstrations("small")
    assert isinstance(opened, TraceSet) and len(opened.traces) == 4
    opened = open_demonstrations("aa")
    assert isinstance(opened, NldFolder) and opened.folder == nle_data
    assert isinstance(open_demonstrations(BUNDLED), TraceSet)
    assert isinstance(open_demonstrations(nle_data), NldFolder)
    opened = open_demonstrations("packed")
    assert isinstance(opened, PackedSet) and len(opened.games) == 4
    next(packed.glob("*.frames")).write_bytes(b"nonsense")
    refused(r"\.frames", packed, "again")
    row = json.loads((data_folder() / "datasets" / "aa.json").read_text())
    assert {key: row[key] for key in ("name", "kind", "folder")} == {
        "name": "aa",
        "kind": "nld-aa",
        "folder": str(nle_data),
    }


def test_a_name_wins_over_a_folder_unless_it_has_a_separator(
    small_set, nle_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_set, "mine")
    assert isinstance(open_demonstrations("mine"), TraceSet)
    add(nle_data, "mine")
    assert isinstance(open_demonstrations("mine"), NldFolder)
    assert isinstance(open_demonstrations(Path("mine")), NldFolder)
    assert isinstance(open_demonstrations("./mine"), TraceSet)
    assert isinstance(open_demonstrations(tmp_path / "mine"), TraceSet)
    monkeypatch.chdir("mine")
    assert isinstance(open_demonstrations("."), TraceSet)


def test_what_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for source, says in (
        ("nowhere", f"no dataset 'nowhere': give a folder or one of {', '.join(bundled_names())}"),
        ("./nowhere", "no dataset 'nowhere': there is no such folder"),
        ("nld-aa-taster", "it can be fetched: nhzoo data add nld-aa-taster"),
        ("../datasets/x", "there is no such folder"),
        ("empty", "not a trace set"),
        ("", "no dataset"),
    ):
        with pytest.raises(InputError, match=says):
            open_demonstrations(source)


def test_names_that_are_taken_or_none(small_set, nle_data, tmp_path):
    refused("bundled dataset; choose another with --name", small_set, BUNDLED)
    add(small_set)
    add(small_set)
    refused("already the name of .*small; choose one with --name", nle_data, "small")
    for name in ("", ".x", "a/b", "../x", "a b", "x" * 65, "-x", "é", "a\n", "a\0"):
        if name:
            refused("cannot name a dataset", small_set, name)
    odd = tmp_path / "two words"
    shutil.copytree(small_set, odd)
    refused("'two words' cannot name a dataset.*--name", odd)
    assert add(odd, "two-words").folder == odd
    assert entries() == ["small.json", "two-words.json"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(min_size=1, max_size=70))
@example("a" * 64)
@example("con.json")
def test_any_name_is_refused_or_comes_back(small_set, tmp_path, name):
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    try:
        add(small_set, name)
    except InputError:
        assert not (tmp_path / "data").exists()
        return
    assert entries() == [f"{name}.json"]
    assert [source.name for source in list_sources()] == [*bundled_names(), name]
    assert open_demonstrations(name).folder == small_set


def test_only_sound_data_is_added(small_set, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(small_set, broken)
    (broken / "games.jsonl").write_text("{}\n")
    refused("games.jsonl, game 1", broken)
    refused("no such folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(r"no games\.jsonl, ttyrecs or packed frames", tmp_path / "empty")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "packed.json").write_bytes(b"nonsense")
    refused("packed.json: not valid JSON", tmp_path / "frames")
    refused("an address fits a dataset that is fetched only", small_set, url="http://x/")
    assert entries() == []


def test_data_below_the_folder_given(small_set, nle_data, tmp_path):
    top = tmp_path / "top"
    shutil.copytree(nle_data, top / "a" / "b" / "nle_data")
    assert add(top) == Source("top", "nld-aa", top / "a" / "b" / "nle_data", 1, None)
    shutil.copytree(small_set, top / "a" / "b" / "small")
    refused("holds several datasets", top, "again")
    deep = tmp_path / "deep"
    shutil.copytree(small_set, deep / "1" / "2" / "3" / "4")
    refused("3 levels below", deep)
    assert add(deep / "1", "deep").games == 4


def test_broken_entries_are_listed_with_a_note(small_set, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(small_set, gone)
    add(gone)
    shutil.rmtree(gone)
    folder = data_folder() / "datasets"
    (folder / "half.json").write_text('{"name": "ha')
    (folder / "list.json").write_text("[]")
    (folder / "long.json").write_text(json.dumps({"kind": "traces", "folder": "/" + "x" * 5_000}))
    (folder / "odd.json").write_text('{"kind": "traces", "folder": "relative"}')
    listed = {source.name: source for source in list_sources()}
    assert list(listed) == [*bundled_names(), "gone", "half", "list", "long", "odd"]
    assert f"its folder {gone} is gone; delete {folder / 'gone.json'}" in listed["gone"].note
    assert listed["gone"].games == 4
    assert "not valid JSON" in listed["half"].note
    assert "is gone; delete" in listed["long"].note
    assert "add the dataset again" in listed["odd"].note
    with pytest.raises(InputError, match="is gone"):
        open_demonstrations("gone")
    with pytest.raises(InputError, match="no dataset 'x'"):
        open_demonstrations("x")
    shutil.copytree(small_set, gone)
    assert add(gone).note == "" and isinstance(open_demonstrations("gone"), TraceSet)


def test_a_dataset_is_fetched_unpacked_and_named(site, zipped):
    site.data = zipped
    seen = []
    source = add("nld-aa-taster", url=site.url, progress=lambda *metrics: seen.append(metrics))
    place = data_folder() / "downloads"
    data = place / "nld-aa-taster" / "nld-aa-taster" / "nle_data"
    assert source == Source("nld-aa-taster", "nld-aa", data, 1, None)
    assert {what.split()[0] for _, _, what in seen} == {"downloading", "unpacking", "reading"}
    assert (len(zipped), len(zipped), f"downloading {site.url}") in seen
    assert not (place / "nld-aa-taster.zip").exists()
    assert len(open_demonstrations("nld-aa-taster").games) == 1
    assert add("nld-aa-taster", url=site.url) == source
    assert site.asked == 1
    shutil.rmtree(place / "nld-aa-taster")
    assert add("nld-aa-taster", url=site.url) == source and site.asked == 2


def test_a_fetch_that_is_broken_off_goes_on(site, zipped, tmp_path, monkeypatch):
    site.data = zipped
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "unzip", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add("nld-aa-taster", fetch_to=tmp_path / "big", url=site.url)
    assert os.listdir(tmp_path / "big") == ["nld-aa-taster.zip"] and entries() == []
    source = add("nld-aa-taster", "mine", fetch_to=tmp_path / "big", url=site.url)
    assert source.name == "mine" and site.asked == 1
    assert tmp_path / "big" in source.folder.parents


def test_what_a_server_may_send_instead(site, zipped):
    refused("the server says 403 .*by other means", "nld-aa-taster", url=site.url)
    site.data = b"<Error><Code>AccessDenied</Code></Error>"
    refused("not a sound zip archive.*delete it and fetch it again", "nld-aa-taster", url=site.url)
    (data_folder() / "downloads" / "nld-aa-taster.zip").unlink()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("a/README", "no data")
    site.data = buffer.getvalue()
    refused("no games.jsonl, ttyrecs or packed", "nld-aa-taster", url=site.url)
    assert entries() == []


@pytest.mark.slow
def test_a_result_is_data_to_measure_on_and_never_to_train_on(tmp_path):
    folder = tmp_path / "r"
    evaluate(RandomAgent(), "smoke-v1", episodes=2, workers=1, out=folder)
    found = open_demonstrations(folder)
    assert [trace.game for trace in found.traces] == ["0", "1"]
    assert splits(folder) == ["test"]
    assert packing.pack(folder, workers=1).frames == sum(t.length for t in found.traces)
    assert packing.pack(folder, workers=1, split="train").games == []
    rows = (folder / "episodes.jsonl").read_text().splitlines(keepends=True)
    for bad, reason in (
        (rows[0].replace('"index": 0', '"index": 8'), "no game of smoke-v1"),
        (rows[0].replace('"index": 0', '"index": 3'), "other seeds"),
        (rows[0].replace('"keys": ', '"keys": -'), "keys"),
        (rows[0] + rows[0], "listed twice"),
        ("", "holds no game"),
    ):
        (folder / "episodes.jsonl").write_text(bad)
        with pytest.raises(InputError, match=reason):
            open_demonstrations(folder)
