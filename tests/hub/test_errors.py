"""What the user's settings do to a connection is told by the setting, not guessed at."""

from __future__ import annotations

import errno
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nhzoo.data import download
from nhzoo.errors import InputError, refusal
from nhzoo.hub import client as hub
from nhzoo.hub import errors, repos
from nhzoo.policy import checkpoint
from nhzoo.runtime import files
from nhzoo.training import run_state

# Of nobody, for 127.0.0.1 and a hundred years; no authority has signed it.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWV5qHpP3KCObjL7H
RCyEVlYSA3zT+Vy47/ubs3G+hcihRANCAAQbXRDRXI/mnOX881BKeNck6EXooffg
dFRvQGdp6Wb2uCPho9kBg9LNnHnGvDd2YhIc+EylFOM5hD1l06jSPtHQ
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUJeJO+eqG/rXStivUOaZ21w5l1VQwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyOTEyMTk1NVoYDzIxMjYxMTA1MTIx
OTU1WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQbXRDRXI/mnOX881BKeNck6EXooffgdFRvQGdp6Wb2uCPho9kBg9LNnHnGvDd2
YhIc+EylFOM5hD1l06jSPtHQo1MwUTAdBgNVHQ4EFgQUmL9u8SRFz3fWlrUK8WGr
DFXecJswHwYDVR0jBBgwFoAUmL9u8SRFz3fWlrUK8WGrDFXecJswDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBTxhwzhZLelIDA1Z+Wc06dp324rvEh
nVJm1bJbehtBAAIgFH1eAtf7LyP+xPQC8r3CB4OnwUOWWSiDwNTX5edZdHQ=
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE names /nowhere/ca.pem, .* no file"),
        ("SSL_CERT_FILE", "{tmp}", "SSL_CERT_FILE names .*, which is no file: correct or unset"),
        ("SSL_CERT_FILE", "{tmp}/none.pem", "cannot be read .*SSL_CERT_FILE names .*none.pem"),
        ("HTTP_PROXY", "socks5://user:secret@h:1", "proxy in HTTP_PROXY .*: pip install socksio"),
        ("HTTP_PROXY", "foo://user:secret@h:1", "proxy in HTTP_PROXY .*give http://host:port"),
        ("HTTP_PROXY", "127.0.0.1:port", "proxy in HTTP_PROXY .*give http://host:port"),
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT is huggingface.co, no address"),
    ],
)
def test_the_hub_is_not_blamed_for_the_users_settings(
    name, value, says, hub, monkeypatch, tmp_path
):
    from huggingface_hub.utils import close_session

    (tmp_path / "none.pem").write_text("no certificate")
    for proxy in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv(name, value.format(tmp=tmp_path))
    close_session()
    with pytest.raises(InputError, match=says) as told:
        _resolve("hf://nhzoo/tiny")
    assert "secret" not in str(told.value)
    assert "make room" not in str(told.value)
    close_session()


def _resolve(text):
    return hub.resolve(repos.parse(text))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "/a/file: No space left on device; make room there"),
        (errno.EACCES, "/a/file: Permission denied; change its permissions"),
        (errno.EROFS, "/a/file: Read-only file system; name a folder that can be written"),
        (errno.EMFILE, "/a/file: Too many open files; .*ulimit -n"),
    ],
)
def test_a_refusal_of_the_system_is_told_by_its_number(code, says):
    from os import strerror

    error = OSError(code, strerror(code), "/a/file")
    with pytest.raises(InputError, match=says), errors.speaking_of("the hub"):
        raise error
    with pytest.raises(InputError, match=says.partition(": ")[2]), files.saving(Path("/a/file")):
        raise error
    assert refusal(OSError("no number")) == "no number"


def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "pair.pem").write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.handle_error = lambda request, client: None  # the other end hangs up
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/file"
        try:
            for value, says in (
                ("", "is not trusted .*name those of your network in SSL_CERT_FILE"),
                ("/nowhere/ca.pem", "SSL_CERT_FILE names /nowhere/ca.pem, which is no file"),
            ):
                monkeypatch.setenv("SSL_CERT_FILE", value)
                monkeypatch.delenv("SSL_CERT_DIR", raising=False)
                monkeypatch.setattr(download.time, "sleep", _fail)  # no second try would help
                with pytest.raises(InputError, match=says):
                    download.download(url, tmp_path / "file")
        finally:
            server.shutdown()


def _fail(seconds):
    raise AssertionError("tried again")


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("socks5://user:secret@127.0.0.1:9", "proxy in http_proxy .*: pip install socksio"),
        ("foo://user:secret@127.0.0.1:9", "proxy in http_proxy .*give http://host:port"),
    ],
)
def test_a_download_through_a_proxy_that_cannot_be_used_names_it(
    proxy, says, tmp_path, monkeypatch
):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InputError, match=says) as told:
        download.download("http://127.0.0.1:9/file", tmp_path / "file")
    assert "secret" not in str(told.value)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123172\n"


@pytest.mark.parametrize("name", ["model.safetensors", "parity.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(name, entry):
    (entry / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=rf"{name}: is a pointer of Git LFS.*git lfs pull"):
        checkpoint.load_entry(entry)


def test_a_state_that_cannot_be_read_need_not_be_deleted(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_state.safetensors, "safe_open", refuse)
    with pytest.raises(InputError, match="state: cannot be read: Permission denied") as told:
        run_state._read(tmp_path / "state")
    assert "delete" not in str(told.value)
