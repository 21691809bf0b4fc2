"""Entries and datasets from the hub: what is fetched, what is refused, and that it is said.

The real client talks to the hub of `tests/hub.py` on loopback.
"""

from __future__ import annotations

import gzip
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
from nhzoo import agents, hub_contents, hub_errors, hub_pull, hub_refs
from nhzoo import hub as client
from nhzoo.errors import InputError
from nhzoo.evaluation import evaluate
from nhzoo.hub_pull import pull_dataset, pull_entry
from tests.conftest import make_entry
from tests.hub import Blob, Hub


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as they are put on a hub."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def tiny(hub, shared_entry):
    """nhzoo/tiny on the hub: an entry of debug size."""
    return hub.add("nhzoo/tiny", content(shared_entry))


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
    assert agent.revision == agents.load(shared_entry).revision
    assert agents.load(shared_entry).source is None


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
    from nhzoo.sources import open_demonstrations

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
    hub_pull.copy_to(pulled, out)
    (out / "config.json").write_text("{}")
    assert json.loads((pulled.folder / "config.json").read_text())["library"] == "nhzoo"
    with pytest.raises(InputError, match="is not empty"):
        hub_pull.copy_to(pulled, out)


# A network and a hub that fail


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
    fails("no connection .*or it was lost.*run again to go on|run again", "hf://nhzoo/tiny")
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

    monkeypatch.setattr("nhzoo.hub.fetch", fetch)
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


def test_a_server_that_does_not_answer(hub, tiny, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("nhzoo.hub_client.TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    for where in ("GET /api/models/nhzoo/tiny/tree", "GET /_lfs"):
        hub.fail(where, delay=1, times=99)
        fails("no connection .*run again to go on", "hf://nhzoo/tiny")
        hub.faults.clear()
        nothing_is_left(tmp_path)
    nhzoo.load("hf://nhzoo/tiny")


# A hub, or an author, who wants harm


@pytest.mark.parametrize("large", [True, False])
def test_what_is_not_as_listed_is_deleted(hub, tiny, tmp_path, large):
    path = "model.safetensors" if large else "config.json"
    blob = tiny.files[path]
    hub.served[blob.etag] = blob.data[:-8] + b"\0" * 8
    fails(f"{path} is not what the hub lists .*deleted: run again", "hf://nhzoo/tiny")
    nothing_is_left(tmp_path)
    hub.served.clear()
    assert nhzoo.load("hf://nhzoo/tiny").name == "tiny"


@pytest.fixture
def outside(tmp_path):
    """A file beside the cache, which no hub should reach."""
    path = tmp_path / "outside" / "precious"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
@pytest.mark.parametrize("climbs", [True, False])
@pytest.mark.parametrize("name", ["precious", "new"])
def test_hashes_that_are_paths(hub, tiny, outside, header, climbs, name):
    """The client names files of its cache by these headers."""
    path = outside.with_name(name)
    value = "../" * 30 + str(path)[1:] if climbs else str(path)
    status = 404 if header == "X-Repo-Commit" else 0  # what is missing is noted under it
    headers = {header: f'"{value}"' if header != "X-Repo-Commit" else value}
    headers |= {"X-Error-Code": "EntryNotFound"} if status else {}
    hub.fail("HEAD .*/config.json", status=status, headers=headers, times=99)
    fails("gives a hash that is none but a path; not trusted", "hf://nhzoo/tiny")
    assert [path.name for path in outside.parent.iterdir()] == ["precious"]
    assert outside.read_text() == "mine"


def test_what_is_deleted_lies_in_the_cache(hub, tiny, outside, tmp_path):
    """Even when a link of the cache leads out of it."""
    cached = tmp_path / "hf-home/hub/models--nhzoo--tiny/snapshots" / tiny.sha / "config.json"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(outside)
    fails("is not what the hub lists", "hf://nhzoo/tiny")
    assert outside.read_text() == "mine"
    assert nhzoo.load("hf://nhzoo/tiny").name == "tiny"


def test_a_wrong_etag_and_a_wrong_commit_change_nothing(hub, tiny, shared_entry):
    hub.fail("HEAD .*/config.json", headers={"ETag": '"0000"'}, times=99)
    hub.fail("HEAD .*/README.md", headers={"X-Repo-Commit": "1" * 40}, times=99)
    assert content(pull_entry("hf://nhzoo/tiny").folder) == content(shared_entry)


def test_more_bytes_than_listed(hub, tiny, tmp_path):
    blob = tiny.files["model.safetensors"]
    hub.served[blob.etag] = blob.data * 50
    fails("bytes come, the hub lists .*do not trust it", "hf://nhzoo/tiny")
    nothing_is_left(tmp_path)
    hub.served[blob.etag] = blob.data[:1000]
    fails("run again|not what the hub lists", "hf://nhzoo/tiny")
    nothing_is_left(tmp_path)


def test_a_pickle_is_never_read(hub, shared_entry):
    held = content(shared_entry)
    del held["model.safetensors"]
    hub.add("bob/pickle", held | {"pytorch_model.bin": b"cos\nsystem\n(S'false'\ntR."})
    fails("a pickle .pytorch_model.bin., which is never read", "hf://bob/pickle")
    hub.add("bob/nothing", {"config.json": b"{}"})
    fails("has no model.safetensors, so it is no zoo entry", "hf://bob/nothing")
    assert not any("resolve" in line for line in hub.requests)


def test_a_pickle_in_safetensors_clothes(hub, shared_entry):
    held = content(shared_entry) | {"model.safetensors": b"\x80\x04cos\nsystem\n."}
    hub.add("bob/disguised", held)
    fails("not valid safetensors", "hf://bob/disguised", nhzoo.load)


def test_sizes_beyond_reason(hub, shared_entry):
    held = content(shared_entry)
    huge = Blob(b"x", lfs=True, claimed=50 << 30)
    hub.add("bob/huge", held | {"model.safetensors": huge})
    fails("model.safetensors has 53,687,091,200 bytes, at most", "hf://bob/huge")
    hub.add("bob/many", held | {f"results/p{i}/result.json": b"{}" for i in range(10_000)})
    fails("lists more than 2,000 files", "hf://bob/many")
    assert not any("resolve" in line for line in hub.requests)


def test_names_that_are_one_on_some_disks(hub, shared_entry, tmp_path):
    more = {"results/a/result.json": b"{}", "results/A/result.json": b"{}"}
    hub.add("bob/twice", content(shared_entry) | more)
    fails("results/A/result.json and results/a/result.json, which are one", "hf://bob/twice")
    hub.add("bob/odd", content(shared_entry) | {"Config.json": b"{}", "r\xe9sum\xe9.md": b"x"})
    assert pull_entry("hf://bob/odd").left_out == 2


def test_folders_without_end(hub, tiny):
    rows = [{"type": "directory", "path": f"d{i}", "oid": "0" * 40} for i in range(2_001)]
    hub.fail("GET .*/tree/", status=200, body=json.dumps(rows).encode(), times=99)
    fails("lists more than 2,000 files", "hf://nhzoo/tiny")


def test_an_answer_that_unfolds_without_end(hub, tiny, monkeypatch):
    packed = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    headers = {"Content-Encoding": "gzip"}
    hub.fail("GET .*/tree/", status=200, body=packed, headers=headers, times=99)
    fails("packs its answer, which was not asked for", "hf://nhzoo/tiny")
    hub.faults.clear()
    hub.served[tiny.files["config.json"].etag] = packed
    hub.fail("GET .*config.json", headers=headers, times=99)
    fails("bytes come, the hub lists", "hf://nhzoo/tiny")
    hub.faults.clear()
    monkeypatch.setattr("nhzoo.hub_client.LARGEST_ANSWER", 1_000_000)
    hub.fail("GET .*/tree/", status=200, body=b" " * 1_100_000, times=99)
    fails("does not end its answer", "hf://nhzoo/tiny")
    hub.faults.clear()
    hub.fail("GET .*/tree/", status=200, body=b"[" * 100_000, times=99)
    fails("makes no sense", "hf://nhzoo/tiny")


# Tokens


@pytest.fixture
def elsewhere(tiny):
    """Another hub, under another host name, and its address."""
    with Hub() as other:
        other.add("nhzoo/tiny", {path: blob.data for path, blob in tiny.files.items()})
        yield other, other.url.replace("127.0.0.1", "localhost")


TOKEN = "hf_" + "secret" * 5


def test_the_token_stays_with_the_hub(hub, elsewhere, monkeypatch):
    other, url = elsewhere
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    link = {"Link": f'<{url}/api/models/nhzoo/tiny/tree/main>; rel="next"'}
    hub.fail("GET .*/tree/", headers=link, times=99)
    fails("sends us to localhost with the token; not done", "hf://nhzoo/tiny")
    hub.faults.clear()
    for where in ("GET .*s/nhzoo/tiny$", "GET .*/tree/", "HEAD .*config", "GET .*config"):
        hub.fail(where, status=302, headers={"Location": f"{url}/steal"}, times=99)
        fails("status 404|does not answer|no such file", "hf://nhzoo/tiny")
        hub.faults.clear()
    assert other.requests
    assert not other.authorized
    assert hub.authorized


@pytest.mark.parametrize(
    "token", ["hf_secret\x01" + "x" * 20, "hf_secr\xe9t" + "x" * 20, "hf_secret x"]
)
def test_a_token_that_fits_in_no_header(hub, tiny, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert "secr" not in fails("the token for the hub has characters", "hf://nhzoo/tiny")
    assert not hub.requests


def test_errors_show_no_secrets(hub, tiny, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = {"X-Error-Message": f"what is {TOKEN} and Bearer {TOKEN[3:]}"}
    hub.fail("GET .*s/nhzoo/tiny$", status=400, headers=said, times=9)
    assert "secret" not in fails("refused .status 400. .what is hf_", "hf://nhzoo/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@127.0.0.1:9")
    assert "secret" not in fails(r"no connection to http://\*\*\*@127.0.0.1:9", "hf://nhzoo/tiny")
    signed = "lost https://cdn.example.org/a/b?X-Amz-Signature=abc&Expires=1 (status)"
    assert hub_errors.without_secrets(signed) == "lost https://cdn.example.org/a/b?*** (status)"


@pytest.mark.parametrize(
    "name",
    [
        "../../.bashrc",
        "/etc/passwd",
        "results/../../x",
        "a\\..\\b",
        "a//b",
        "x\ny",
        "./config.json",
    ],
)
def test_names_that_escape(hub, shared_entry, name, tmp_path):
    hub.add("bob/escape", content(shared_entry) | {name: b"x"})
    fails("no name inside a folder; not trusted", "hf://bob/escape")
    nothing_is_left(tmp_path)


def test_a_link_is_a_file_with_a_path_in_it(hub, shared_entry):
    hub.add("bob/link", content(shared_entry) | {"config.json": b"/etc/passwd"})
    fails("not valid JSON", "hf://bob/link", nhzoo.load)


def test_a_hub_that_answers_nonsense(hub, tiny):
    for where in ("GET /api/models/nhzoo/tiny/revision", "GET .*/tree/", "HEAD .*config"):
        hub.fail(where, status=200, times=99)
        fails("makes no sense|has no|does not answer as the hub does", "hf://nhzoo/tiny@main")
        hub.faults.clear()
    hub.repos["model", "nhzoo/tiny"].refs["odd"] = "../../etc"
    hub.repos["model", "nhzoo/tiny"].commits["../../etc"] = tiny.__class__(
        "../../etc", None, "", tiny.files
    )
    fails("not trusted", "hf://nhzoo/tiny@odd")


def test_a_fetched_entry_that_was_damaged_says_how_to_mend_it(tiny):
    pulled = pull_entry("tiny")
    (pulled.folder / "config.json").unlink()
    told = fails("does not load: .*config.json: no such file", "tiny", nhzoo.load)
    assert told.endswith(f"delete {pulled.folder} and fetch it anew")


def test_an_entry_whose_self_test_fails_is_not_loaded(hub, shared_entry, tmp_path):
    held = content(shared_entry)
    other = content(make_entry(tmp_path / "other", seed=3))
    hub.add("bob/swapped", held | {"model.safetensors": other["model.safetensors"]})
    fails("the self-test fails", "hf://bob/swapped", nhzoo.load)


# Names


@given(st.text(max_size=60) | st.from_regex(r"(hf://)?[\w./@-]{0,40}", fullmatch=True))
@settings(max_examples=400, deadline=None)
def test_names_are_clean_or_refused(text):
    try:
        ref = hub_refs.parse(text)
    except InputError:
        return
    for part in (*ref.repo.split("/"), *(ref.revision or "x").split("/")):
        assert part not in ("", ".", "..") and not set(part) & set("\\:?#%& \n\0")
    assert hub_refs.parse(str(ref)) == ref
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
        pull_entry(text) if text != "hf://a/b@" else hub_refs.parse("hf://a/b@..")


def test_git_hashes_are_gits():
    blob = Blob(b"hello\n")
    assert blob.oid == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert blob.sha256 == hashlib.sha256(b"hello\n").hexdigest()
