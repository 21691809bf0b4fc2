"""Publishing: one commit of exactly what is in the list, none when nothing has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nhzoo
from nhzoo.cli.app import cli
from nhzoo.errors import InputError
from nhzoo.evaluation.evaluator import evaluate
from nhzoo.hub import client
from nhzoo.hub import upload as hub_push
from nhzoo.publishing import bundle
from tests.conftest import content, make_entry
from tests.helpers.hub import Hub

# The client's own upload calls its transport in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def alice(monkeypatch):
    """Logged in as alice, who may write in nhzoo and in alice."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Path:
    """A result of the debug-size entry: four games of smoke-v1."""
    base = tmp_path_factory.mktemp("played")
    entry = make_entry(base / "tiny-agent")
    evaluate(entry, "smoke-v1", episodes=4, workers=1, out=base / "smoke-v1")
    return base / "smoke-v1"


def push(folder, repo=None, played=(), **options):
    return hub_push.push(bundle.gather(folder, repo, played), **options)


def fails(match, *arguments, **options):
    with pytest.raises(InputError, match=match) as error:
        push(*arguments, **options)
    assert "\n" not in str(error.value)


def commits(hub) -> list[str]:
    return [line for line in hub.requests if "/commit/" in line]


# Entries


@pytest.mark.slow
def test_an_entry_goes_up_in_one_commit_and_comes_back(hub, alice, entry, played):
    done = push(entry, played=[played])
    assert done.made
    assert done.ref.repo == "alice/tiny-agent"
    assert len(commits(hub)) == 1
    repo = hub.repos["model", "alice/tiny-agent"]
    assert set(repo.head.files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "parity.safetensors",
        "replay.cast",
        "results/smoke-v1/episodes.jsonl",
        "results/smoke-v1/result.json",
    }
    assert repo.head.files["model.safetensors"].lfs
    card = repo.card(repo.head)
    assert card["library_name"] == "nhzoo"
    assert card["pipeline_tag"] == "reinforcement-learning"
    agent = nhzoo.load("hf://alice/tiny-agent")
    assert agent.source == str(done.ref)
    assert agent.revision == nhzoo.load(entry).revision


@pytest.mark.slow
def test_the_same_again_is_no_commit(hub, alice, entry, played):
    first = push(entry, played=[played])
    again = push(entry, played=[played])
    assert not again.made
    assert again.ref == first.ref
    assert len(commits(hub)) == 1
    other = make_entry(entry.parent / "other" / "tiny-agent", seed=5)
    changed = push(other)
    assert changed.plan.changed == (
        "README.md",
        "config.json",  # its numerics: a hash of the logits in play
        "model.safetensors",
        "parity.safetensors",
    )
    assert changed.plan.removed == (
        "replay.cast",
        "results/smoke-v1/episodes.jsonl",
        "results/smoke-v1/result.json",
    )
    assert len(commits(hub)) == 2
    held = hub.repos["model", "alice/tiny-agent"].head.files
    assert ".gitattributes" in held  # not ours: it stays


def test_only_what_is_in_the_list_is_sent(hub, alice, entry):
    for name in ("secrets.env", "model.pkl", "train.py", ".git/config", "results/notes.txt"):
        (entry / name).parent.mkdir(exist_ok=True)
        (entry / name).write_text("x")
    push(entry)
    sent = set(hub.repos["model", "alice/tiny-agent"].head.files)
    assert sent == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "parity.safetensors",
    }


def test_secrets_beside_an_entry_or_a_site_stay_here(hub, alice, entry, tmp_path):
    keys = tmp_path / "home" / ".ssh"
    keys.mkdir(parents=True)
    (keys / "id_rsa").write_text("secret")
    (entry / ".env").write_text("HF_TOKEN=secret")
    (entry / "credentials.json").write_text("secret")
    (entry / ".git").mkdir()
    (entry / ".git" / "config.json").write_text("secret")
    (entry / "config.json.bak").write_text("secret")
    push(entry)
    assert not any(b"secret" in blob for blob in hub.objects.values())
    for name in ("ssh", ".eval_results", "results", "README.md"):
        other = shutil.copytree(entry, tmp_path / f"linked{name}")
        (other / name).unlink(missing_ok=True)
        (other / name).symlink_to(keys if name != "README.md" else keys / "id_rsa")
        fails("is a link; only files inside", other)
    (tmp_path / "home" / "index.html").write_text("<html>")
    (tmp_path / "home" / "passwords.txt").write_text("secret")
    fails("is neither an entry .* a site goes to --repo hf://spaces", tmp_path / "home")
    fails("is neither an entry", tmp_path / "home", "alice/x")
    assert len(hub.repos) == 1


def test_weights_that_change_under_way_are_not_sent(hub, alice, entry):
    plan = bundle.gather(entry)
    other = make_entry(entry.parent / "other", seed=2)
    shutil.copy(other / "model.safetensors", entry)
    with pytest.raises(InputError, match=r"model\.safetensors has changed since it was checked"):
        hub_push.push(plan)
    assert set(hub.repos["model", "alice/tiny-agent"].head.files) == {".gitattributes"}


@pytest.mark.slow
def test_a_readme_of_the_authors_own_is_kept(hub, alice, entry, small_set):
    (entry / "README.md").write_text("---\nlicense: mit\n---\n# By hand\n\nAll my words.\n")
    push(entry)
    card = hub.repos["model", "alice/tiny-agent"].head.files["README.md"].data.decode()
    assert card.endswith("# By hand\n\nAll my words.\n")
    assert "license: mit" in card
    assert card.count("\n---\n") == 1
    (entry / "README.md").unlink()
    push(entry)
    held = hub.repos["model", "alice/tiny-agent"].head.files
    assert held["README.md"].data.startswith(b"---\nlibrary_name: nhzoo")
    data = shutil.copytree(small_set, entry.parent / "data")
    (data / "README.md").write_text("My games.\n")
    push(data)
    assert hub.repos["dataset", "alice/data"].head.files["README.md"].data.endswith(b"My games.\n")


@pytest.mark.parametrize("where", ["POST .*create", "POST .*preupload", "POST .*batch"])
def test_a_push_is_not_led_elsewhere_with_the_token(hub, alice, entry, where):
    with Hub() as other:
        url = other.url.replace("127.0.0.1", "localhost")
        hub.fail(where, status=307, headers={"Location": f"{url}/steal"}, times=99)
        fails("status 404|makes no sense", entry)
        verify = {"href": f"{url}/steal"}
        hub.faults.clear()
        sha = hashlib.sha256((entry / "model.safetensors").read_bytes()).hexdigest()
        size = (entry / "model.safetensors").stat().st_size
        upload = {"href": f"{hub.url}/_lfs/{sha}"}
        row = {"oid": sha, "size": size, "actions": {"upload": upload, "verify": verify}}
        batch = json.dumps({"transfer": "basic", "objects": [row]}).encode()
        hub.fail("POST .*batch", status=200, body=batch, times=99)
        fails("the token is wanted at localhost, which is not the hub; not trusted", entry)
        assert not other.authorized


def test_offline_a_push_says_so(hub, alice, entry, offline):
    offline()
    fails("has to be asked, and HF_HUB_OFFLINE is set", entry)
    fails("has to be asked, and HF_HUB_OFFLINE is set", entry, "nhzoo/tiny")
    assert not hub.requests


@pytest.mark.slow
def test_what_cannot_be_an_entry_is_not_sent(hub, alice, entry, tmp_path, played):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    other = shutil.copytree(entry, tmp_path / "linked")
    (other / "curve.csv").symlink_to(secret)
    fails("curve.csv: is a link", other)
    other = shutil.copytree(entry, tmp_path / "linked-folder")
    (other / "results").symlink_to(tmp_path)
    fails("results: is a link", other)
    other = shutil.copytree(entry, tmp_path / "broken")
    (other / "model.safetensors").write_bytes(b"\x80\x04pickle")
    fails("not valid safetensors", other)
    (other / "model.safetensors").unlink()
    fails("has no model.safetensors, so it is no zoo entry", other)
    fails("no such folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    fails("is neither an entry", tmp_path / "empty")
    other = make_entry(tmp_path / "other", seed=9)
    fails("is of other weights than this entry's", other, played=[played])
    assert not commits(hub)


def test_a_card_that_is_too_long_or_a_name_that_is_none(hub, alice, entry, tmp_path):
    fails("names nothing on the hub", entry, "a/b/c")
    fails("goes to a model", entry, "hf://datasets/alice/x")
    fails("pushes go to main", entry, "alice/x@v1")
    odd = shutil.copytree(entry, tmp_path / "a name with spaces")
    fails("names nothing on the hub", odd)


def test_results_inside_the_entry_are_told_in_the_card(hub, alice, entry, played):
    shutil.copytree(played, entry / "results" / "smoke-v1")
    push(entry)
    held = hub.repos["model", "alice/tiny-agent"].head.files
    assert "| `smoke-v1` | 4 of 8 |" in held["README.md"].data.decode()
    assert "results/smoke-v1/result.json" in held
    assert not any("traces" in path for path in held)


@pytest.mark.slow
def test_rights(hub, entry, monkeypatch):
    fails("not logged in to the hub: run `hf auth login`", entry)
    fails("who asks|no such repository", entry, "nhzoo/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    fails("no right to write it .no rights in nhzoo.; see --repo and --pr", entry, "nhzoo/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    push(entry, "nhzoo/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    other = make_entry(entry.parent / "other", seed=2)
    fails("no right to write it", other, "nhzoo/tiny")
    assert not push(entry, "nhzoo/tiny").made  # nothing to send, nothing to ask for


@pytest.mark.slow
def test_private(hub, alice, entry):
    push(entry, private=True)
    assert hub.repos["model", "alice/tiny-agent"].private
    assert not push(entry, private=True).made
    push(entry, "alice/open")
    fails("exists and is public", entry, "alice/open", private=True)


@pytest.mark.slow
def test_a_pull_request_is_opened_once(hub, alice, entry, monkeypatch):
    push(entry, "nhzoo/tiny")
    head = hub.repos["model", "nhzoo/tiny"].head.sha
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    other = make_entry(entry.parent / "other", seed=2)
    done = push(other, "nhzoo/tiny", pull_request=True)
    assert done.made
    assert done.pull_request == f"{hub.url}/nhzoo/tiny/discussions/1"
    repo = hub.repos["model", "nhzoo/tiny"]
    assert repo.head.sha == head
    assert nhzoo.load("hf://nhzoo/tiny@refs/pr/1").revision == nhzoo.load(other).revision
    again = push(other, "nhzoo/tiny", pull_request=True)
    assert (again.made, again.pull_request) == (False, done.pull_request)
    assert len(repo.discussions) == 1
    third = make_entry(entry.parent / "third", seed=3)
    assert push(third, "nhzoo/tiny", pull_request=True).pull_request.endswith("/2")
    fails("no such repository to open a pull request in", entry, "nhzoo/x", pull_request=True)


@pytest.mark.slow
def test_somebody_else_was_faster(hub, alice, entry):
    push(entry)
    other = make_entry(entry.parent / "other" / "tiny-agent", seed=2)
    plan = hub_push.compare(bundle.gather(other))
    hub.add("alice/tiny-agent", {"README.md": b"# theirs"}, title="meanwhile")
    with pytest.raises(InputError, match=r"somebody changed it meanwhile .*; run again"):
        hub_push.push(plan)
    assert hub.repos["model", "alice/tiny-agent"].head.title == "meanwhile"
    assert push(other).made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "status", "says"),
    [
        ("POST .*create", 403, "no right to write"),
        ("POST .*create", 500, "status 500.*run again later"),
        ("POST .*preupload", 429, "too many requests; wait"),
        ("POST .*batch", 503, "status 503"),
        ("PUT /_lfs", 500, "status 500.*run again later"),
        ("POST /_verify", 500, "status 500|in trouble"),
        ("POST .*/commit/", 500, "status 500.*run again later"),
        ("POST .*/commit/", 401, "wants to know who asks"),
    ],
)
def test_a_push_that_fails_leaves_the_branch_and_a_retry_goes_on(
    hub, alice, entry, where, status, says
):
    hub.fail(where, status=status, times=99)
    fails(says, entry)
    repo = hub.repos.get(("model", "alice/tiny-agent"))
    assert repo is None or set(repo.head.files) == {".gitattributes"}
    hub.faults.clear()
    uploaded = len([line for line in hub.requests if line.startswith("PUT /_lfs")])
    assert push(entry).made
    if "/commit/" in where:  # what was uploaded is not uploaded again
        assert len([line for line in hub.requests if line.startswith("PUT")]) == uploaded
    assert nhzoo.load("hf://alice/tiny-agent").name == "tiny-agent"


def test_pushing_to_a_hub_that_is_down_or_renamed(hub, alice, entry):
    push(entry, "nhzoo/tiny")
    hub.rename("model", "nhzoo/tiny", "nhzoo/other")
    fails("was renamed to nhzoo/other", entry, "nhzoo/tiny")
    hub.stop()
    fails("no connection to http://127.0.0.1.*run again to resume", entry, "nhzoo/tiny")


# Datasets, results, the site


def test_a_dataset_goes_up_and_comes_back(hub, alice, small_set):
    done = push(small_set, "nhzoo/small")
    repo = hub.repos["dataset", "nhzoo/small"]
    assert repo.head.files["keys/0.xz"].lfs
    assert "| train | 2 |" in repo.head.files["README.md"].data.decode()
    from nhzoo.data.catalog import open_demonstrations

    data = open_demonstrations(str(done.ref))
    assert len(data.traces) == 4
    back = content(nhzoo.hub.download.pull_dataset(str(done.ref)).folder)
    assert back.pop("README.md")
    assert back == content(small_set)
    assert not push(small_set, "nhzoo/small").made
    damaged = shutil.copytree(small_set, small_set.parent / "damaged")
    shutil.copy(damaged / "keys" / "0.xz", damaged / "keys" / "1.xz")
    fails("keys|SHA-256", damaged, "nhzoo/damaged")
    assert ("dataset", "nhzoo/damaged") not in hub.repos


@pytest.mark.slow
def test_results_go_up_as_a_benchmark_and_verify_when_they_are_back(hub, alice, played, tmp_path):
    root = tmp_path / "all"
    shutil.copytree(played, root / "tiny-agent" / "smoke-v1")
    (root / "tiny-agent" / "smoke-v1" / "report.html").write_text("<html>")
    done = push(root, "nhzoo/results")
    held = hub.repos["dataset", "nhzoo/results"].head.files
    assert {"README.md", "eval.yaml", "tiny-agent/smoke-v1/traces/0.xz"} <= set(held)
    assert not any("html" in path for path in held)
    pulled = nhzoo.hub.download.pull_dataset(str(done.ref))
    back = content(pulled.folder / "tiny-agent" / "smoke-v1")
    assert back == content(played)
    fails("is one result: send it with its entry", played)
    report = nhzoo.verify(pulled.folder / "tiny-agent" / "smoke-v1", workers=1)
    assert report.ok


@pytest.mark.slow
def test_results_of_others_stay_and_are_proposed(hub, alice, played, tmp_path, monkeypatch):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    shutil.copytree(played, mine / "tiny-agent" / "smoke-v1")
    shutil.copytree(played, theirs / "other-agent" / "smoke-v1")
    push(mine, "nhzoo/results")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    proposed = push(theirs, "nhzoo/results", pull_request=True)
    assert proposed.made
    assert not proposed.plan.removed
    assert all(path.startswith("other-agent/") for path in proposed.plan.added)
    again = push(theirs, "nhzoo/results", pull_request=True)
    assert (again.made, again.pull_request) == (False, proposed.pull_request)
    repo = hub.repos["dataset", "nhzoo/results"]
    hub.add("nhzoo/results", repo.find("refs/pr/1").files, kind="dataset", title="merged")
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    (mine / "tiny-agent" / "smoke-v1" / "evaluation.json").unlink()
    done = push(mine, "nhzoo/results")
    assert done.plan.removed == ("tiny-agent/smoke-v1/evaluation.json",)
    assert "other-agent/smoke-v1/result.json" in repo.head.files


def test_a_site_is_a_static_space(hub, alice, tmp_path):
    site = tmp_path / "site"
    (site / "agents").mkdir(parents=True)
    (site / "index.html").write_text("<html>")
    (site / "agents" / "one.html").write_text("<html>")
    (site / "server.py").write_text("")
    push(site, "hf://spaces/nhzoo/leaderboard")
    repo = hub.repos["space", "nhzoo/leaderboard"]
    assert repo.sdk == "static"
    assert "sdk: static" in repo.head.files["README.md"].data.decode()
    assert "server.py" not in repo.head.files
    (site / "agents" / "one.html").unlink()
    assert push(site, "hf://spaces/nhzoo/leaderboard").plan.removed == ("agents/one.html",)


@pytest.mark.slow
def test_everything_of_a_checkout(entry, played, tmp_path):
    root = tmp_path / "checkout"
    shutil.copytree(entry, root / "agents" / "tiny-agent")
    shutil.copytree(played, root / "leaderboard" / "results" / "tiny-agent" / "smoke-v1")
    (root / "leaderboard" / "site").mkdir()
    (root / "leaderboard" / "site" / "index.html").touch()
    assert [make.args[1] for make in bundle.everything(root, "org")] == [
        "org/tiny-agent",
        "org/autoascend-allroles-v1",
        "org/autoascend-monk-v1",
        "org/autoascend-monk-validation",
        "org/results",
        "hf://spaces/org/leaderboard",
    ]
    with pytest.raises(InputError, match="is no checkout"):
        bundle.everything(tmp_path)


@pytest.mark.slow
def test_lists(hub, alice, entry, played):
    push(entry, "nhzoo/tiny", [played])
    hub.add("bob/else", {"README.md": b"---\nlibrary_name: other\n---\n"})
    hub.add("bob/evil", {"README.md": b"---\nlibrary_name: nhzoo\ntags: ['params:x']\n---\n"})
    found = {remote.repo: remote for remote in client.list_entries()}
    assert set(found) == {"nhzoo/tiny", "bob/evil"}
    params = json.loads((entry / "config.json").read_text())["params"]
    assert [found["nhzoo/tiny"].params, found["bob/evil"].params] == [params, None]
    assert [remote.repo for remote in client.list_entries("bob")] == ["bob/evil"]
    assert dataclasses.asdict(found["bob/evil"])


# The command line


@pytest.fixture
def run(capsys):
    """Runs a command in this process; what it printed on stdout."""

    def call(*arguments) -> str:
        capsys.readouterr()
        cli.main([*map(str, arguments)], prog_name="nhzoo", standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_push_list_pull_and_info(hub, alice, entry, played, tmp_path, run):
    shown = run("push", entry, "--results", played, "--dry-run")
    assert "model.safetensors" in shown
    assert "library_name: nhzoo" in shown
    assert not hub.repos
    dry = json.loads(run("push", entry, "--dry-run", "--json"))
    assert (dry["exists"], dry["dry_run"]) == (False, True)
    assert dry["card"].startswith("---\n")
    pushed = json.loads(run("push", entry, "--results", played, "--json"))
    assert pushed["made"]
    assert pushed["source"].startswith("hf://alice/tiny-agent@")
    assert "nothing was sent" in run("push", entry, "--results", played)
    assert json.loads(run("push", entry, "--dry-run", "--json"))["removed"]
    listed = json.loads(run("list", "--remote", "--json"))["entries"]
    assert [row["repo"] for row in listed] == ["alice/tiny-agent"]
    assert "hf://alice/tiny-agent" in run("list", "--remote")
    out = tmp_path / "copy"
    pulled = json.loads(run("pull", "alice/tiny-agent", "--out", out, "--json"))
    assert pulled["source"] == pushed["source"]
    assert set(content(out)) >= {"config.json", "README.md", "replay.cast"}
    assert json.loads(run("info", pushed["source"], "--json"))["library"] == "nhzoo"
    assert "# tiny-agent" in run("card", entry, "--results", played)
    with pytest.raises(InputError, match="goes with --remote"):
        run("list", "--owner", "alice")


def test_a_dry_run_needs_neither_token_nor_hub(hub, entry, run, offline):
    shown = run("push", entry, "--dry-run")
    assert "hf://you/tiny-agent" in shown
    assert "\t?" in shown
    assert not hub.requests
    offline()
    assert "hf://nhzoo/tiny\t" in run("push", entry, "--repo", "nhzoo/tiny", "--dry-run")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        run("list", "--remote")
    assert not hub.requests


@pytest.mark.slow
def test_publish_is_dry_by_default(hub, alice, entry, played, tmp_path, monkeypatch, run):
    root = tmp_path / "checkout"
    shutil.copytree(entry, root / "agents" / "tiny-agent")
    shutil.copytree(played, root / "leaderboard" / "results" / "tiny-agent" / "smoke-v1")
    monkeypatch.setattr(bundle, "bundled_names", list)
    dry = run("publish", root)
    assert "hf://nhzoo/tiny-agent, a new repository: +README.md" in dry
    assert "hf://datasets/nhzoo/results, a new repository: +README.md, +eval.yaml" in dry
    assert not hub.repos
    done = json.loads(run("publish", root, "--yes", "--json"))
    assert [row["made"] for row in done["repositories"]] == [True, True]
    again = run("publish", root, "--yes")
    assert "hf://nhzoo/tiny-agent: as it is (7 files)" in again
    assert len(commits(hub)) == 2


@pytest.mark.slow
def test_in_a_process_of_its_own(hub, alice, entry, monkeypatch, tmp_path):
    def command(*arguments):
        words = [sys.executable, "-m", "nhzoo", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    push(entry, "nhzoo/remote-tiny")
    command("pull", "remote-tiny")
    asked = list(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "out"
    limits = ("--protocol", "smoke-v1", "--episodes", 1, "--workers", 1, "--json", "--out", out)
    result = json.loads(command("evaluate", "remote-tiny", *limits).stdout)
    assert result["source"].startswith("hf://nhzoo/remote-tiny@")
    assert hub.requests == asked
