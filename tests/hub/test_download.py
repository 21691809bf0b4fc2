"""Entries and datasets from the hub: what is fetched, what is refused, and that it is said.

The real client talks to the hub of `tests/helpers/hub.py` on loopback.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nhzoo
from nhzoo.agents import loading
from nhzoo.agents.registry import pull_entry
from nhzoo.errors import InputError
from nhzoo.evaluation.evaluator import evaluate
from nhzoo.hub import client, download, repos
from nhzoo.hub import repos as hub_contents
from nhzoo.hub.download import pull_dataset
from tests.conftest import content, make_entry
from tests.helpers.hub import Blob


def fails(match, text, call=pull_entry):
    with pytest.raises(InputError, match=match) as error:
        call(text)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
    return str(error.value)


def nothing_is_left(tmp_path):
    """No half-written entry lies where it would be loaded from."""
    assert not list((tmp_path / "nhzoo-cache").rglob("config.json"))
    assert not list((tmp_path / "nhzoo-cache").rglob("*.tmp"))


# Fetching


def test_an_entry_is_fetched_once_and_loaded(hub, tiny, shared_entry):
    pulled = pull_entry("hf://nhzoo/tiny")
    assert str(pulled.ref) == f"hf://nhzoo/tiny@{tiny.sha}"
    assert content(pulled.folder) == content(shared_entry)
    assert pulled.folder.name == "tiny"
    asked = len(hub.requests)
    assert pull_entry("hf://nhzoo/tiny").folder == pulled.folder
    assert len(hub.requests) == asked + 1  # what main is now


@pytest.mark.parametrize("text", ["tiny", "tiny@main", "hf://nhzoo/tiny", "hf://nhzoo/tiny@main"])
def test_an_agent_says_where_it_is_from(tiny, text, shared_entry):
    agent = nhzoo.load(text)
    assert agent.name == "tiny"
    assert agent.source == f"hf://nhzoo/tiny@{tiny.sha}"
    assert agent.revision == loading.load(shared_entry).revision
    assert loading.load(shared_entry).source is None


def test_a_pinned_revision_is_used_without_a_request(hub, tiny):
    text = f"hf://nhzoo/tiny@{tiny.sha}"
    nhzoo.load(text)
    asked = list(hub.requests)
    nhzoo.load(text)
    assert hub.requests == asked
    hub.stop()
    assert nhzoo.load(text).source == text
    assert text in [listed.name for listed in nhzoo.list_agents()]


@pytest.mark.parametrize("text", ["tiny", "hf://nhzoo/tiny", "hf://nhzoo/tiny@main"])
def test_offline_nothing_is_asked(hub, tiny, offline, text):
    nhzoo.load(text)
    asked = list(hub.requests)
    offline()
    assert nhzoo.load(text).source == f"hf://nhzoo/tiny@{tiny.sha}"
    assert hub.requests == asked
    fails("HF_HUB_OFFLINE is set", "hf://nhzoo/other")
    fails("no agent 'other'.*HF_HUB_OFFLINE", "other")
    assert hub.requests == asked


def test_what_the_hubs_own_tools_have_fetched_is_used_offline(hub, tiny, offline):
    from huggingface_hub import snapshot_download

    snapshot_download("nhzoo/tiny", endpoint=hub.url)
    asked = list(hub.requests)
    offline()
    assert nhzoo.load("hf://nhzoo/tiny").source == f"hf://nhzoo/tiny@{tiny.sha}"
    assert hub.requests == asked


def test_a_part_is_not_taken_for_the_whole_offline(hub, tiny, small_set, offline, tmp_path):
    from huggingface_hub import hf_hub_download, snapshot_download

    for name in ("config.json", "model.safetensors", "parity.safetensors"):
        hf_hub_download("nhzoo/tiny", name, endpoint=hub.url)
    hub.add("nhzoo/small", content(small_set), kind="dataset")
    some = ["games.jsonl", "keys/0.xz"]
    snapshot_download("nhzoo/small", repo_type="dataset", allow_patterns=some, endpoint=hub.url)
    offline()
    fails("not in the cache, or not all of it, and HF_HUB_OFFLINE", "hf://nhzoo/tiny")
    fails("is not in the cache and HF_HUB_OFFLINE is set", "small", pull_dataset)
    assert not list((tmp_path / "nhzoo-cache").rglob("games.jsonl"))
    nothing_is_left(tmp_path)


def test_a_server_that_is_down_leaves_what_is_cached(hub, tiny):
    nhzoo.load("hf://nhzoo/tiny")
    hub.stop()
    assert nhzoo.load("hf://nhzoo/tiny").source == f"hf://nhzoo/tiny@{tiny.sha}"
    fails("cannot be reached|no connection", "hf://nhzoo/other")
    fails("no connection", f"hf://nhzoo/other@{tiny.sha}")


@pytest.mark.slow
def test_evaluations_store_the_commit(tiny, tmp_path, hub):
    out = tmp_path / "out"
    done = evaluate("hf://nhzoo/tiny", "smoke-v1", episodes=1, workers=1, out=out)
    assert done.result["source"] == f"hf://nhzoo/tiny@{tiny.sha}"
    assert json.loads((out / "result.json").read_text())["source"] == done.result["source"]
    files = {path: blob.data for path, blob in tiny.files.items()}
    hub.add("nhzoo/tiny", files | {"README.md": b"# another card"}, title="second")
    again = evaluate("hf://nhzoo/tiny", "smoke-v1", episodes=1, workers=1, out=out)
    assert again.result["source"] == done.result["source"]  # the same weights go on
    hub.add("nhzoo/tiny", content(make_entry(tmp_path / "other", seed=1)), title="third")
    with pytest.raises(InputError, match="holds a result with another revision"):
        evaluate("hf://nhzoo/tiny", "smoke-v1", episodes=1, workers=1, out=out)


def test_a_revision_that_moved_is_another_commit(hub, tiny, tmp_path):
    repo = hub.repos["model", "nhzoo/tiny"]
    repo.refs["v1"] = tiny.sha
    first = pull_entry("hf://nhzoo/tiny@v1")
    moved = hub.add("nhzoo/tiny", content(make_entry(tmp_path / "other", seed=1)), title="second")
    repo.refs["v1"] = moved.sha
    second = pull_entry("hf://nhzoo/tiny@v1")
    assert [first.ref.revision, second.ref.revision] == [tiny.sha, moved.sha]
    assert content(first.folder) != content(second.folder)
    del repo.commits[tiny.sha]  # somebody rewrote its history
    shutil.rmtree(first.folder)
    shutil.rmtree(tmp_path / "hf-home")
    fails("no such revision, or no longer", f"hf://nhzoo/tiny@{tiny.sha}")


def test_only_what_is_in_the_list_is_fetched(hub, shared_entry):
    more = {
        "payload.pkl": b"cos\nsystem\n",
        "model.bin": b"x",
        "code.py": b"raise SystemExit",
        "huge.zip": Blob(b"x", lfs=True, claimed=50 << 30),
        "results/monk-lite-v1/result.json": b"{}",
        "results/monk-lite-v1/run.sh": b"rm -rf .",
    }
    hub.add("nhzoo/tiny", content(shared_entry) | more)
    pulled = pull_entry("tiny")
    wanted = {*content(shared_entry), "results/monk-lite-v1/result.json"}
    assert set(content(pulled.folder)) == wanted
    assert pulled.left_out == 5
    assert not any("payload" in line or "huge" in line for line in hub.requests)


def test_datasets(hub, small_set, offline):
    from nhzoo.data.catalog import open_demonstrations

    made = hub.add("nhzoo/small", content(small_set), kind="dataset")
    text = f"hf://datasets/nhzoo/small@{made.sha}"
    assert open_demonstrations("hf://datasets/nhzoo/small").name == "small"
    asked = list(hub.requests)
    data = open_demonstrations(text)
    assert hub.requests == asked
    assert data.name == "small"
    assert len(data.traces) == 4
    assert data.traces[0].keys()
    asked = list(hub.requests)
    offline()
    assert open_demonstrations("hf://datasets/nhzoo/small").name == "small"
    assert hub.requests == asked
    assert pull_dataset("small").folder == data.folder
    fails("is no dataset", "hf://nhzoo/small", pull_dataset)
    fails("not an agent", "hf://datasets/nhzoo/small")


def test_a_copy_to_change(tiny, tmp_path):
    pulled = pull_entry("tiny")
    out = tmp_path / "mine"
    download.copy_to(pulled, out)
    (out / "config.json").write_text("{}")
    assert json.loads((pulled.folder / "config.json").read_text())["library"] == "nhzoo"
    with pytest.raises(InputError, match="is not empty"):
        download.copy_to(pulled, out)


# A network and a hub that fail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "wants to know who asks; log in"),
        (403, "no right to read"),
        (404, "refused .status 404"),
        (429, "too many requests; wait 7 seconds and run again"),
        (500, "status 500.*run again"),
        (503, "status 503.*run again"),
    ],
)
@pytest.mark.parametrize("where", ["GET /api/models/nhzoo/tiny", "GET .*tree", "HEAD .*config"])
def test_statuses(hub, tiny, tmp_path, status, says, where):
    hub.fail(where, status=status, headers={"Retry-After": "7"}, times=99)
    fails(says, "hf://nhzoo/tiny")
    nothing_is_left(tmp_path)
    hub.faults.clear()
    nhzoo.load("hf://nhzoo/tiny")


@pytest.mark.parametrize("headers", [{"Retry-After": "86400"}, {"RateLimit": '"api";r=0;t=86400'}])
def test_a_wait_that_is_too_long_is_left_to_the_user(hub, tiny, headers):
    hub.fail("GET .*/tree/", status=429, headers=headers, times=99)
    fails("too many requests; wait 86400 seconds and run again", "hf://nhzoo/tiny")
    assert len([line for line in hub.requests if "/tree/" in line]) == 1


def test_a_missing_repository_and_revision(hub, tiny):
    fails("no such repository .*check the name, or log in", "hf://nhzoo/nothing")
    fails("no agent 'nothing': give a folder, .*one of .*; nor from the hub: .*no such", "nothing")
    fails("no such revision", "hf://nhzoo/tiny@v9")


def test_gated_and_private(hub, shared_entry, monkeypatch):
    hub.add("bob/gated", content(shared_entry), gated=True)
    hub.add("bob/private", content(shared_entry), private=True)
    fails("is gated: ask for access on https://huggingface.co/bob/gated", "hf://bob/gated")
    fails("no such repository .* or it is private", "hf://bob/private")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    assert nhzoo.load("hf://bob/gated").name == "gated"
    assert nhzoo.load("hf://bob/private").name == "private"
    monkeypatch.setenv("HF_TOKEN", "nonsense")
    fails("wants to know who asks|no such repository", "hf://bob/other")


def test_a_renamed_repository(hub, tiny):
    hub.rename("model", "nhzoo/tiny", "nhzoo/small-one")
    fails("was renamed to nhzoo/small-one; use that", "hf://nhzoo/tiny")
    assert nhzoo.load("hf://nhzoo/small-one").name == "small-one"


def test_a_cut_connection_goes_on_within_the_download(hub, tiny, shared_entry):
    hub.fail("GET /_lfs", cut=30_000, times=2)
    assert content(pull_entry("tiny").folder) == content(shared_entry)


def test_a_retry_asks_for_what_is_missing_only(hub, tiny, tmp_path):
    large = max(hub.objects, key=lambda sha: len(hub.objects[sha]))
    hub.fail(f"GET /_lfs/{large}", cut=0, times=99)
    fails("no connection .*or it was lost.*run again to resume|run again", "hf://nhzoo/tiny")
    nothing_is_left(tmp_path)
    hub.faults.clear()
    hub.requests.clear()
    nhzoo.load("hf://nhzoo/tiny")
    fetched = [line for line in hub.requests if line.startswith("GET ") and "/api/" not in line]
    assert fetched == [f"GET /_lfs/{large}"]


def test_a_large_file_that_is_cut(hub, shared_entry):
    """Within a run the client goes on at its latest block; the next run begins that file anew."""
    large = bytes(24 << 20)
    hub.add("nhzoo/tiny", content(shared_entry) | {"replay.cast": large})
    path = next(sha for sha, data in hub.objects.items() if data == large)
    hub.fail(f"GET /_lfs/{path}", cut=12 << 20, times=1)
    pulled = pull_entry("hf://nhzoo/tiny")
    assert (pulled.folder / "replay.cast").read_bytes() == large
    assert hub.ranges == [f"bytes={10 << 20}-"]


def test_when_one_file_fails_the_others_end(hub, shared_entry, monkeypatch):
    """Ctrl-C, or a file that is refused, does not wait for gigabytes."""
    hub.add("nhzoo/tiny", content(shared_entry) | {"replay.cast": bytes(1_000_000)})
    begun = threading.Event()

    def fetch(ref, file, note):
        if file.path == "model.safetensors":
            begun.wait()
            raise InputError("refused")
        if file.path == "replay.cast":
            while True:  # a download without end
                note(1, 2)
                begun.set()
        return Path(file.path)

    monkeypatch.setattr("nhzoo.hub.client.fetch", fetch)
    fails("refused|was not fetched", "hf://nhzoo/tiny")


def test_what_comes_through_xet_is_told_as_well():
    """The client's own reporter, as it calls the bar that we give it."""
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    told = []
    bar = client._meter("it", 100, lambda done, total: told.append((done, total)))
    report = SimpleNamespace(
        total_bytes=100,
        total_bytes_completed=60,
        total_transfer_bytes_completed=900,  # chunks come whole
        total_bytes_completion_rate=1.0,
        total_transfer_bytes_completion_rate=1.0,
    )
    options = {"reconstruction_desc": "", "total": 100, "log_level": 30, "tqdm_class": bar}
    with XetDownloadProgressReporter(**options) as reporter:
        reporter.update_progress(report)
        report.total_bytes_completed = 100
        reporter.update_progress(report)
    assert told == [(60, 100), (100, 100)]
    with pytest.raises(InputError, match="bytes come"):
        XetDownloadProgressReporter(**options | {"total": 101})


@pytest.mark.slow
def test_a_server_that_does_not_answer(hub, tiny, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("nhzoo.hub.guard.TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    for where in ("GET /api/models/nhzoo/tiny/tree", "GET /_lfs"):
        hub.fail(where, delay=1, times=99)
        fails("no connection .*run again to resume", "hf://nhzoo/tiny")
        hub.faults.clear()
        nothing_is_left(tmp_path)
    nhzoo.load("hf://nhzoo/tiny")


# Names


@pytest.mark.slow
@given(st.text(max_size=60) | st.from_regex(r"(hf://)?[\w./@-]{0,40}", fullmatch=True))
@settings(max_examples=400, deadline=None)
def test_names_are_clean_or_refused(text):
    try:
        ref = repos.parse(text)
    except InputError:
        return
    for part in (*ref.repo.split("/"), *(ref.revision or "x").split("/")):
        assert part not in ("", ".", "..") and not set(part) & set("\\:?#%& \n\0")
    assert repos.parse(str(ref)) == ref
    assert len(ref.repo.split("/")) == 2


@given(st.lists(st.text(max_size=12) | st.sampled_from(["..", "results", "config.json", "a"])))
@settings(deadline=None)
def test_lists_stay_inside_the_folder(parts):
    path = "/".join(parts)
    for contents in (hub_contents.ENTRY, hub_contents.TRACES, hub_contents.RESULTS):
        if contents.limit(path) is not None:
            hub_contents.check_paths([path], "it")
            assert Path("/base", path).resolve().is_relative_to("/base")
            assert Path("/base", path).as_posix() == f"/base/{path}"


@pytest.mark.parametrize("text", ["a/b/c", "hf://a", "hf://a/b@", "a/..", "-x", "hf://a/b@../c"])
def test_what_names_nothing(text):
    with pytest.raises(InputError, match=r"names nothing on the hub|no agent"):
        pull_entry(text) if text != "hf://a/b@" else repos.parse("hf://a/b@..")


def test_git_hashes_are_gits():
    blob = Blob(b"hello\n")
    assert blob.oid == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert blob.sha256 == hashlib.sha256(b"hello\n").hexdigest()
