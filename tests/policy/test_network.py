from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.flop_counter import FlopCounterMode

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.errors import InputError
from nhzoo.policy import features, map_search, memory, table_sums
from nhzoo.policy.config import (
    CHARS,
    COMPASS,
    COMPASS_ROWS,
    CROP_CELLS,
    CROP_ROWS,
    CURSOR_ROWS,
    DISTANCES,
    HERE_ROWS,
    LETTERS,
    PATCH_CELLS,
    RECENT_ROWS,
    STATUS_CELLS,
    STATUS_SYMBOLS,
    TARGETS,
    PolicyConfig,
)
from nhzoo.policy.network import Policy, to_tensors
from nhzoo.policy.table_sums import symbol_sum, table_sum

SCREENS = arrays(np.uint8, (2, 24, 80), elements=st.integers(0, 255))


def screens(n: int, seed: int = 0):
    random = np.random.default_rng(seed)
    chars = random.integers(32, 127, (n, 24, 80)).astype(np.uint8)
    chars[random.random(chars.shape) < 0.6] = 32
    colors = random.integers(0, 16, (n, 24, 80)).astype(np.int8)
    cursor = np.stack([random.integers(0, 24, n), random.integers(0, 80, n)], 1).astype(np.uint8)
    return chars, colors, cursor, random.integers(0, 256, n).astype(np.uint8)


def inputs(time: int, batch: int, seed: int = 0):
    frames = [array.reshape(time, batch, *array.shape[1:]) for array in screens(time * batch, seed)]
    return to_tensors(features.encode_games(*frames), time, batch)


@pytest.mark.parametrize(
    "params", [10_000, 12_345, 20_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
)
def test_for_params_hits_its_target_and_counts_exactly(params):
    config = PolicyConfig.for_params(params)
    assert abs(config.params / params - 1) < 0.02
    if params <= 1_000_000:
        assert sum(p.numel() for p in Policy(config).parameters()) == config.params


@given(st.floats(4.0, 8.69897))
@settings(max_examples=60, deadline=None)
def test_for_params_hits_any_target(log_params):
    params = int(10**log_params)
    assert abs(PolicyConfig.for_params(params).params / params - 1) < 0.02


@pytest.mark.parametrize("params", [9_999, 500_000_001, 0, -5])
def test_sizes_that_are_not_built(params):
    with pytest.raises(InputError, match="parameters"):
        PolicyConfig.for_params(params)


def test_the_whole_network_grows_with_size():
    small, large = PolicyConfig.for_params(100_000), PolicyConfig.for_params(10_000_000)
    for name in small.to_dict():
        assert getattr(large, name) > getattr(small, name)


@pytest.mark.slow
@pytest.mark.parametrize("params", [20_000, 300_000])
def test_flops_agree_with_torchs_counter_where_that_counts(params):
    """torch counts matrix products, and not table sums."""
    config = PolicyConfig.for_params(params)
    policy = Policy(config)
    batch = inputs(1, 4)

    lookups = config._lookups()
    with FlopCounterMode(display=False) as forward:
        logits, _ = policy(batch, policy.initial_state(4))
    assert forward.get_total_flops() == 4 * (config.forward_flops - lookups)
    with FlopCounterMode(display=False) as both:
        logits, _ = policy(batch, policy.initial_state(4))
        logits.sum().backward()
    assert both.get_total_flops() == 4 * (config.train_flops - 2 * lookups)
    frozen = policy.encoder_parameters()
    assert sum(parameter.numel() for parameter in frozen) == config.encoder_params
    for parameter in frozen:
        parameter.requires_grad_(False)
    with FlopCounterMode(display=False) as rest:
        logits, _ = policy(batch, policy.initial_state(4))
        logits.sum().backward()
    assert rest.get_total_flops() == 4 * (config.core_train_flops - lookups)


def test_table_sum_is_embedding_bag_forward_and_backward():
    random = torch.Generator().manual_seed(0)
    table = torch.randn(50, 7, generator=random, requires_grad=True)
    indices = torch.randint(-1, 50, (3, 4, 6), generator=random, dtype=torch.int32)
    ours = table_sum(table, indices)
    weights = torch.randn(ours.shape, generator=random)
    (ours * weights).sum().backward()
    grad, table.grad = table.grad, None
    rows = torch.where(indices < 0, 50, indices).long()
    padded = torch.cat([table, torch.zeros(1, 7)])
    theirs = padded[rows].sum(-2)
    (theirs * weights).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(grad, table.grad)
    wide = table.detach().double().requires_grad_()  # goes the road that GPUs take
    for chosen in (indices, indices.long()):
        double = table_sum(wide, chosen)
        torch.testing.assert_close(double.float(), theirs)
        (found,) = torch.autograd.grad((double * weights).sum(), wide)
        torch.testing.assert_close(found.float(), table.grad)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("width", [1, 5, 16, 46])  # less than a vector, one, some
@pytest.mark.parametrize("layout", ["scattered", "map"])
def test_symbol_sum_is_the_sum_of_the_rows_that_its_layout_says(
    layout, width, biased, relu, monkeypatch
):
    random = torch.Generator().manual_seed(width)
    if layout == "map":  # aligned fours, most of them blank
        places = torch.from_numpy(features.MAP_LAYOUT.places)
        rows = torch.from_numpy(features.MAP_LAYOUT.rows)
        symbols = torch.randint(0, 256, (3, 2, places.numel()), generator=random, dtype=torch.uint8)
        symbols *= torch.rand(symbols.shape, generator=random) < 0.1
    else:
        places = torch.randint(0, 9, (4, 6), generator=random, dtype=torch.int32)
        rows = torch.randint(-1, 30, (6, 256), generator=random, dtype=torch.int32)
        symbols = torch.randint(0, 256, (3, 2, 9), generator=random, dtype=torch.uint8)
    groups, each = places.shape
    table = torch.randn(int(rows.max()) + 1, width, generator=random, requires_grad=True)
    bias = torch.randn(width, generator=random, requires_grad=True) if biased else None
    leaves = [table, bias] if biased else [table]
    ours = symbol_sum(table, symbols, places, rows, bias, relu)
    weights = torch.randn(ours.shape, generator=random)
    grads = torch.autograd.grad((ours * weights).sum(), leaves)

    padded = torch.cat([table, torch.zeros(1, width)])
    chosen = rows[torch.arange(each), symbols[..., places.long()].long()].long()
    expected = padded[torch.where(chosen < 0, len(table), chosen)].sum(-2)
    expected = expected if bias is None else expected + bias
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(ours, expected)
    assert ours.shape == (3, 2, groups, width)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for grad, other in zip(grads, theirs, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-5)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]  # the road that GPUs take
    double = symbol_sum(wide[0], symbols, places, rows, wide[1] if biased else None, relu)
    torch.testing.assert_close(double.float(), expected)
    for at_once in (1 << 26, 1):  # additions of all places together, and of each by itself
        monkeypatch.setattr(table_sums, "_AT_ONCE", at_once)
        found = torch.autograd.grad((double * weights).sum(), wide, retain_graph=True)
        for grad, other in zip(found, theirs, strict=True):
            torch.testing.assert_close(grad.float(), other, rtol=1e-4, atol=1e-5)


@given(chars=SCREENS, colors=SCREENS, row=st.integers(0, 255), col=st.integers(0, 255))
@settings(max_examples=50, deadline=None)
def test_any_screen_is_encoded_as_a_plain_loop_would(chars, colors, row, col):
    cursor = np.array([[row, col], [0, 0]], np.uint8)
    found = features.encode(chars, colors.view(np.int8), cursor, features.no_recall(2))
    for i, (y0, x0) in enumerate(cursor.astype(int)):
        for cell in range(121):
            y, x = y0 - 5 + cell // 11, x0 - 5 + cell % 11
            symbols = found.crop[i, :2, cell].tolist()
            if 0 <= y < 24 and 0 <= x < 80:
                char = int(chars[i, y, x])
                shown = char - 32 if 32 <= char < 128 else 0
                assert symbols == [1 + shown, 1 + (colors[i, y, x] & 15)]
            else:
                assert symbols == [0, 0]
        window = np.zeros((21, 76), np.uint8)
        for y, x in np.ndindex(21, 76):
            row_, col_ = y0 - 10 + y, x0 - 38 + x
            if 1 <= row_ < 22 and 0 <= col_ < 80 and 32 < chars[i, row_, col_] < 128:
                window[y, x] = chars[i, row_, col_] - 32
        np.testing.assert_array_equal(found.map[i], window)
    assert found.status.max() < STATUS_SYMBOLS
    assert found.message.min() >= -1


def test_layouts_stay_inside_their_tables_and_say_where_a_cell_is():
    for layout, limit in (
        (features.CROP_LAYOUT, CROP_ROWS),
        (features.MAP_LAYOUT, PATCH_CELLS * CHARS),
        (features.CURSOR_LAYOUT, CURSOR_ROWS),
        (features.CHOICES_LAYOUT, LETTERS),
        (features.RECENT_LAYOUT, RECENT_ROWS),
        (features.COMPASS_LAYOUT, COMPASS_ROWS),
        (features.HERE_LAYOUT, HERE_ROWS),
        (features.status_layout(3_200), STATUS_CELLS * STATUS_SYMBOLS),
        (features.status_layout(7), 7),
    ):
        assert layout.rows.min() >= -1
        assert layout.rows.max() < limit
        assert layout.places.shape[1] == len(layout.rows)
    # Patch 20 is the second of the second row of patches: its cells lie 3 rows and 4 columns in.
    assert features.MAP_LAYOUT.places[20, 0] == 3 * 76 + 4
    assert features.MAP_LAYOUT.places[20, 11] == 5 * 76 + 7
    assert features.MAP_LAYOUT.rows[11, ord("@") - 32] == 11 * 96 + 32
    assert features.CROP_LAYOUT.rows[:, 1].tolist() == [0, 96, 96 + 16]
    assert features.CURSOR_LAYOUT.rows[:, 255].tolist() == [23, 24 + 79]
    keys = features.RECENT_LAYOUT.rows
    assert (keys[:, 0] == -1).all()
    assert len(set(keys[3, ACTION_KEYS].tolist())) == 118  # distinct keys, distinct rows
    assert keys[3, 0xFF] == 3 * 122 + 121  # no action presses it
    # One direction's symbols select the rows of every other's.
    assert features.COMPASS_LAYOUT.places[5, 2] == 5 * COMPASS + 2
    assert features.COMPASS_LAYOUT.rows[-1, DISTANCES] + 1 == COMPASS_ROWS
    assert features.status_layout(3_200).rows[3, 8] == 3 * 40 + 8
    assert features.status_layout(100).rows[3, 8] == 28


def test_features_see_what_they_are_meant_to():
    chars = np.full((1, 24, 80), 32, np.uint8)
    colors = np.zeros((1, 24, 80), np.int8)
    chars[0, 0, :9] = np.frombuffer(b"You hit x", np.uint8)
    chars[0, 10, 40], colors[0, 10, 40] = ord("@"), 15
    chars[0, 10, 41], colors[0, 10, 41] = ord("d"), 3
    chars[0, 23, :14] = np.frombuffer(b"HP:7 T:123 Hun", np.uint8)
    chars[0, 22, :5] = np.frombuffer(b"Agent", np.uint8)
    cursor = np.array([[10, 40]], np.uint8)
    recall = features.no_recall(1)
    memory.push_key(recall[0], ord("l"))
    found = features.encode(chars, colors, cursor, recall)
    middle = CROP_CELLS // 2
    assert found.crop[0, :, middle].tolist() == [1 + ord("@") - 32, 1 + 15, 0]
    assert found.crop[0, :, middle + 1].tolist() == [1 + ord("d") - 32, 1 + 3, 0]
    assert np.count_nonzero(found.map) == 2  # blanks, message and status are not map
    assert (found.message >= 0).sum() == 6  # three words and as many pairs
    status = found.status[0]
    assert status[3] == 8
    assert (np.flatnonzero(status) == [0, 1, 2, 3, 5, 6, 11, 12, 13]).all()  # no turn
    assert found.cursor[0].tolist() == [10, 40]
    assert found.recent[0].tolist() == [ord("l"), 0, 0, 0, 0, 0, 0, 0]
    assert not found.compass.any()  # without level and turn it may be no map at all
    chars[0, 23, 20:27] = np.frombuffer(b"Dlvl:1 ", np.uint8)
    chars[0, 23, :27] = np.roll(chars[0, 23, :27], 7)
    found = features.encode(chars, colors, cursor, recall)
    assert found.crop[0, 2, middle] == 1  # it has stood there
    east = found.compass[0, memory.MOVES.index("l")]
    assert east[map_search.BEING] == 1  # the creature is one step away
    assert east[TARGETS : TARGETS + 2].tolist() == [1 + ord("d") - 32, 1 + 3]
    assert found.compass[0, :, map_search.BEING].sum() == 1


@pytest.mark.parametrize(
    ("question", "row", "letters"),
    [
        ("What do you want to eat? [fghi or ?*]", 0, "fghi"),
        ("What do you want to throw? [$a-cmA-C or ?*]", 0, "abcmABC"),
        ("There is a newt corpse here; eat it? [ynq] (n)", 0, "ynq"),
        ("Really attack? [z-a] (n)", 0, "za"),  # no range
        ("What do you want to write with? [- or ?*]", 0, ""),
        ("Dip it into the fountain [yn", 0, "yn"),
        ("Hello Agent, welcome to NetHack!", 0, ""),
        ("A message [abc] with the cursor on the map", 5, ""),
    ],
)
def test_letters_that_a_question_offers(question, row, letters):
    chars = np.full((1, 24, 80), 32, np.uint8)
    chars[0, 0, : len(question)] = np.frombuffer(question.encode(), np.uint8)
    colors, cursor = np.zeros((1, 24, 80), np.int8), np.array([[row, 40]], np.uint8)
    found = features.encode(chars, colors, cursor, features.no_recall(1)).choices[0]
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert {alphabet[i] for i in np.flatnonzero(found)} == set(letters)


def test_an_offered_letter_changes_its_own_key_alone():
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(1)).eval()
    policy.tables["choices"].data.zero_()  # or what is offered would reach the LSTM too
    batch = inputs(1, 1)
    batch["choices"].zero_()
    with torch.no_grad():
        plain, _ = policy(batch, policy.initial_state(1))
        batch["choices"][0, 0, 2] = 1
        offered, _ = policy(batch, policy.initial_state(1))
    assert (plain != offered).nonzero()[:, -1].tolist() == [list(ACTION_KEYS).index(ord("c"))]


def test_steps_carry_the_state_that_a_sequence_has():
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(1)).eval()
    batch = inputs(6, 3)
    with torch.no_grad():
        together, reached = policy(batch, policy.initial_state(3))
        state = policy.initial_state(3)
        for t in range(6):
            one, state = policy({k: v[t : t + 1] for k, v in batch.items()}, state)
            torch.testing.assert_close(one[0], together[t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, reached, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "values", [None, [], {}, {"hidden": 3}, {**PolicyConfig.for_params(20_000).to_dict(), "x": 1}]
)
def test_configs_that_are_not(values):
    with pytest.raises(InputError, match="policy config"):
        PolicyConfig.from_dict(values)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None, 1 << 40])
def test_widths_that_are_not(value):
    good = PolicyConfig.for_params(20_000).to_dict()
    with pytest.raises(InputError, match="crop must be an integer"):
        PolicyConfig.from_dict(good | {"crop": value})


@pytest.mark.gpu
def test_the_policy_runs_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    policy = Policy(PolicyConfig.for_params(100_000)).cuda()
    batch = {name: tensor.cuda() for name, tensor in inputs(4, 2).items()}
    on_gpu, _ = policy(batch, policy.initial_state(2))
    on_cpu, _ = policy.cpu()(inputs(4, 2), policy.initial_state(2))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)
