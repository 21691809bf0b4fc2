"""The horizon: for how many steps of games a run carries the state of each stream."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nhzoo.data import packing
from nhzoo.data.batches import Streams
from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig
from nhzoo.scaling import fitting
from nhzoo.scaling.runs import Points
from nhzoo.training import bc, outputs, run_table
from nhzoo.training.config import HORIZON, BCConfig
from tests.helpers.synthetic_laws import Truth, runs

SHAPE = PolicyConfig.for_params(20_000)


def budget(frames: int, batch: int = 4) -> float:
    """FLOPs of a run of so many frames."""
    updates = frames // (batch * 64)
    return updates * (SHAPE.train_flops * batch * 64 + SHAPE.update_flops) * 1.000_001


def test_the_default_horizon_is_the_same_for_every_budget_that_can_have_it():
    for frames in (HORIZON * 40, HORIZON * 400):
        config = BCConfig("data", 20_000, budget(frames))
        assert config.frames == frames
        assert frames / config.open_streams == pytest.approx(HORIZON, rel=0.01)
    assert BCConfig("data", 20_000, budget(HORIZON * 3_000)).open_streams == 2_048  # for memory
    short = BCConfig("data", 20_000, budget(HORIZON // 4))
    assert short.open_streams == short.batch
    timed = BCConfig("data", 20_000, None, minutes=5, batch=3)
    assert (timed.frames, timed.open_streams) == (None, 66)


def test_a_horizon_or_streams_that_are_given_decide():
    config = BCConfig("data", 20_000, budget(512 * 1_000), horizon=4_000)
    assert config.open_streams == 128
    assert replace(config, horizon=0, streams=512).open_streams == 512
    pairs = replace(config, batch=2)  # more updates in the budget, whose cost are fewer frames
    assert pairs.open_streams * 4_000 == pytest.approx(pairs.frames, rel=0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"horizon": 1_000, "streams": 4}, "either --horizon or --streams"),
        ({"horizon": 1_000, "flops": None, "minutes": 1.0}, "needs a budget in FLOPs"),
        ({"horizon": 9_985}, "for 9,984 steps in this budget"),
        ({"horizon": -1}, "--horizon must be at least 0"),
    ],
)
def test_horizons_that_cannot_be(options, says):
    config = BCConfig("data", 20_000, budget(40_000, 4))
    assert config.frames == 39_936
    with pytest.raises(InputError, match=says):
        replace(config, **options)


def test_a_horizon_longer_than_the_data_is_refused_and_the_row_says_what_was(small_set, tmp_path):
    games = packing.pack(small_set, workers=1, cache=tmp_path).games
    config = BCConfig("small", 20_000, budget(4_096), validate_every=1_000)
    with pytest.raises(InputError, match=r"--horizon 900: the games of small have [\d,]+ steps"):
        bc.Run(replace(config, horizon=900), games[:1], tmp_path / "run")
    trained = bc.train_bc(replace(config, horizon=500), games[1:], games[:1], tmp_path / "run")
    row = outputs.ledger_row(trained, "a", games[1:])
    assert trained.config.open_streams == 8
    assert row.horizon == trained.frames // 8
    assert 400 < row.horizon <= 512  # rows padded at the end of a game are no steps
    run_table.append_row(tmp_path / "runs.jsonl", row)
    assert run_table.read_runs(tmp_path / "runs.jsonl") == [row]


def test_streams_begin_at_the_first_frame_of_games_or_anywhere(small_set, tmp_path):
    games = packing.pack(small_set, workers=1, cache=tmp_path).games
    first = Streams(games, 6, 2, 16, seed=1, starts="first")
    assert not first._position.any()
    assert sorted(first._at[:4]) == [0, 1, 2, 3]  # each game once before any is taken again
    assert Streams(games, 6, 2, 16, seed=1, starts="anywhere")._position.any()
    read = [first.next()[0] for _ in range(3)]
    assert all(batch.first.all() for batch in read)
    state = first.state()
    resumed = Streams(games, 6, 2, 16, seed=1, starts="first")
    resumed.restore(state)
    for _ in range(150):
        ours, theirs = first.next()[0], resumed.next()[0]
        np.testing.assert_array_equal(ours.actions, theirs.actions)


def test_a_horizon_that_grows_with_samples_is_found():
    def found(rows):
        return [d for d in fitting.fit(rows).diagnostics if d.code == "horizon_confounded"]

    rows = runs(Truth(), 0.01)
    assert not found(rows)  # nothing is known
    confounded = [replace(row, horizon=max(1, row.samples // 50_000)) for row in rows]
    (finding,) = found(confounded)
    assert finding.value == pytest.approx(1, abs=0.05)
    assert "--horizon" not in finding.message and finding.level == "warning"
    assert not found([replace(row, horizon=24_576) for row in rows])
    assert not found([replace(row, horizon=row.samples + 20_000) for row in rows])


def test_fits_from_before_there_was_a_horizon_are_read():
    fit = fitting.fit(runs(Truth(), 0.01))
    columns = fit.points.as_json()
    assert set(columns.pop("horizon")) == {None}
    assert Points.from_json(columns).as_json() == fit.points.as_json()
    assert fitting.fit([replace(r, horizon=9) for r in runs(Truth(), 0.01)]).data_sha256 == (
        fit.data_sha256
    )
