"""The pool without processes: tests of what is done with games need not wait for workers."""

from __future__ import annotations


def run_tasks(make_task, args, items, workers, slots=1, hang_seconds=None, foreign_seconds=None):
    """As `nhzoo.runtime.pool.run_tasks`, one item after another in this process."""
    task = None
    for key, item in items:
        task = task or make_task(*args)
        task.start(key, item)
        finished = False
        while not finished:
            for done in task.advance(_blame):
                finished |= done[0] is not None
                yield done


def _blame(number, a, b, foreign=0):
    """Who would be to blame for a crash: not asked here."""


def without_processes(monkeypatch):
    """Let the package use this pool."""
    monkeypatch.setattr("nhzoo.runtime.pool.run_tasks", run_tasks)
