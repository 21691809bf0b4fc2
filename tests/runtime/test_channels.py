"""Channels: no end waits for another that is stopped, slow or gone; what came in whole is given."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time

import numpy as np
import pytest

from nhzoo.runtime.channels import Channel, wait


@pytest.fixture
def ends():
    a, b = Channel.pair()
    yield a, b
    a.close()
    b.close()


def test_messages_of_any_size_arrive_in_order(ends):
    a, b = ends
    sent = [1, "two", {"three": np.arange(300_000)}, None, b"x" * 1_000_000]
    for message in sent:
        a.send(message)
    received = []
    deadline = time.monotonic() + 30
    while len(received) < len(sent):
        assert time.monotonic() < deadline
        wait([a, b], 1)  # sends the rest
        received += b.receive()
    assert received[:2] == [1, "two"] and received[3:] == [None, sent[4]]
    np.testing.assert_array_equal(received[2]["three"], sent[2]["three"])
    assert not a.unsent and not b.received


def test_a_send_to_an_end_that_reads_nothing_returns_at_once(ends):
    a, b = ends
    began = time.monotonic()
    for number in range(20):  # the socket holds two of these at most
        a.send((number, bytes(100_000)))
    assert wait([a], 0.05) == []
    assert time.monotonic() - began < 5
    assert a.unsent > 1_000_000
    for number in range(20):
        while not b._messages:
            a.flush()
            b._read()
        assert b.next(5)[0] == number
    assert not a.unsent


@pytest.mark.parametrize("cut", [3, 8, 20])  # within the header, after it, within the message
def test_half_a_message_is_kept_until_the_rest_comes(cut):
    raw, theirs = socket.socketpair()
    other, theirs_too = Channel.pair()
    other.send("whole")
    frame = theirs_too._socket.recv(1 << 16)
    long = (100).to_bytes(8, "little") + b"\x80\x05" + bytes(98)
    channel = Channel(theirs)
    raw.sendall(frame + frame[:cut])
    assert channel.receive() == ["whole"]
    assert channel.receive() == []  # and does not wait
    assert channel.received == min(cut, len(frame))
    with pytest.raises(TimeoutError):
        channel.next(0.05)
    raw.sendall(frame[cut:])
    assert channel.next(5) == "whole"
    raw.sendall(frame + long[:50])
    raw.close()
    assert channel.receive() == ["whole"]
    with pytest.raises(EOFError):  # the half is dropped
        channel.receive()
    with pytest.raises(EOFError):
        channel.next(5)
    channel.send("nobody")
    assert not channel.unsent
    for end in (channel, other, theirs_too):
        end.close()


def test_what_is_no_frame_ends_the_channel():
    raw, theirs = socket.socketpair()
    channel = Channel(theirs)
    raw.sendall(b"printed by mistake\n")
    with pytest.raises(EOFError):
        channel.receive()
    raw.close()
    channel.close()


def _echo(channel):
    while (message := channel.next()) != "stop":
        channel.send(message)
        channel.drain()
    data = bytes(1_000)
    channel._socket.send(len(data).to_bytes(8, "little") + data[:500])
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_process_stopped_in_the_middle_of_a_message():
    ours, theirs = Channel.pair()
    process = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs,))
    process.start()
    theirs.close()
    try:
        large = bytes(1_000_000)  # more than the sockets take at once, either way
        ours.send(large)
        ours.drain(60)
        assert ours.next(60) == large
        ours.send("stop")
        deadline = time.monotonic() + 60
        while not ours.received:
            assert time.monotonic() < deadline
            wait([ours], 0.1)
            assert ours.receive() == []
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            ours.next(0.2)
        ours.send(bytes(10_000_000))
        with pytest.raises(TimeoutError):
            ours.drain(0.2)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.join(30)
    with pytest.raises(EOFError):
        ours.next(30)
    ours.close()


def test_what_foreign_code_writes_into_the_socket_ends_the_channel_after_what_was_said():
    raw, theirs = socket.socketpair()
    with raw:
        end = Channel(theirs)
        Channel(raw).send("said")
        raw.send((4).to_bytes(8, "little") + b"junk")
        assert end.receive() == ["said"]
        for _ in range(2):
            with pytest.raises(EOFError):
                end.receive()
        end.close()
