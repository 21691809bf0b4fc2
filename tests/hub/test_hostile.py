"""A hub, or an author, who wants harm: nothing leaves the cache, no token leaves the hub."""

from __future__ import annotations

import gzip
import json

import pytest

import nhzoo
from nhzoo.agents.registry import pull_entry
from nhzoo.hub import errors
from tests.conftest import content, make_entry
from tests.helpers.hub import Blob, Hub
from tests.hub.test_download import fails, nothing_is_left


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


@pytest.mark.slow
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
    fails(
        "hf://nhzoo/tiny.*: 127.0.0.1 gives a hash that is none but a path; not trusted: check",
        "hf://nhzoo/tiny",
    )
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
    monkeypatch.setattr("nhzoo.hub.guard.LARGEST_ANSWER", 1_000_000)
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
    fails("the token is wanted at localhost, which is not the hub; not trusted", "hf://nhzoo/tiny")
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
    assert errors.without_secrets(signed) == "lost https://cdn.example.org/a/b?*** (status)"


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
