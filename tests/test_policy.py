from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nhzoo import features
from nhzoo.errors import InputError
from nhzoo.policy import Policy, PolicyConfig, to_tensors
from nhzoo.tables import table_sum

SCREENS = arrays(np.uint8, (2, 24, 80), elements=st.integers(0, 255))


def screens(n: int, seed: int = 0):
    random = np.random.default_rng(seed)
    chars = random.integers(32, 127, (n, 24, 80)).astype(np.uint8)
    chars[random.random(chars.shape) < 0.6] = 32
    colors = random.integers(0, 16, (n, 24, 80)).astype(np.int8)
    cursor = np.stack([random.integers(0, 24, n), random.integers(0, 80, n)], 1).astype(np.uint8)
    return chars, colors, cursor, random.integers(0, 256, n).astype(np.uint8)


def inputs(time: int, batch: int, seed: int = 0):
    return to_tensors(features.encode(*screens(time * batch, seed)), time, batch)


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
    for name in PolicyConfig.__dataclass_fields__:
        assert getattr(large, name) > getattr(small, name)


@pytest.mark.parametrize("params", [20_000, 300_000])
def test_flops_agree_with_torchs_counter_where_that_counts(params):
    """torch counts matrix products, not table sums, and 0 for nn.LSTM: cells take its place."""
    config = PolicyConfig.for_params(params)
    policy = Policy(config)
    batch = inputs(1, 4)

    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(config.hidden, config.hidden)

        def forward(self, x, state):
            h, c = self.cell(x[0], (state[0][0], state[1][0]))
            return h[None], (h[None], c[None])

    policy.core = Cells()
    lookups = config._lookups()
    with FlopCounterMode(display=False) as forward:
        logits, _ = policy(batch, policy.initial_state(4))
    assert forward.get_total_flops() == 4 * (config.forward_flops - lookups)
    with FlopCounterMode(display=False) as both:
        logits, _ = policy(batch, policy.initial_state(4))
        logits.sum().backward()
    # At T = 1 from a constant state, the product with its gradient is not formed: 8 h^2 a frame.
    expected = config.train_flops - 2 * lookups - 8 * config.hidden**2
    assert both.get_total_flops() == pytest.approx(4 * expected, rel=0.02)


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
    double = table_sum(table.detach().double(), indices)  # the road that GPUs take
    torch.testing.assert_close(double.float(), theirs)


@given(chars=SCREENS, colors=SCREENS, row=st.integers(0, 255), col=st.integers(0, 255))
@settings(max_examples=50, deadline=None)
def test_any_screen_gives_indices_within_their_tables(chars, colors, row, col):
    cursor = np.array([[row, col], [0, 0]], np.uint8)
    found = features.encode(chars, colors.view(np.int8), cursor, np.array([0, 255], np.uint8))
    limits = {
        "crop": features.CHARS + features.COLORS,
        "map": features.PATCH_CELLS * features.CHARS,
        "message": 1 << 31,
        "status": features.STATUS_CELLS * features.STATUS_SYMBOLS,
        "where": features.WHERE_ROWS,
    }
    for name, limit in limits.items():
        indices = getattr(found, name)
        assert indices.min() >= -1
        assert indices.max() < limit


def test_features_see_what_they_are_meant_to():
    chars = np.full((1, 24, 80), 32, np.uint8)
    colors = np.zeros((1, 24, 80), np.int8)
    chars[0, 0, :9] = np.frombuffer(b"You hit x", np.uint8)
    chars[0, 10, 40], colors[0, 10, 40] = ord("@"), 15
    chars[0, 10, 41], colors[0, 10, 41] = ord("d"), 3
    chars[0, 23, :14] = np.frombuffer(b"HP:7 T:123 Hun", np.uint8)
    chars[0, 22, :5] = np.frombuffer(b"Agent", np.uint8)
    cursor = np.array([[10, 40]], np.uint8)
    found = features.encode(chars, colors, cursor, np.array([ord("l")], np.uint8))
    middle = features.CELLS // 2
    assert found.crop[0, middle].tolist() == [ord("@") - 32, features.CHARS + 15]
    assert found.crop[0, middle + 1].tolist() == [ord("d") - 32, features.CHARS + 3]
    assert (found.map >= 0).sum() == 2  # blanks add nothing, the message and status are not map
    assert (found.message >= 0).sum() == 6  # three words and as many pairs
    status = found.status[0]
    assert status[3] == 3 * features.STATUS_SYMBOLS + 8
    assert (np.flatnonzero(status >= 0) == [0, 1, 2, 3, 5, 6, 11, 12, 13]).all()  # no turn
    assert found.where[0].tolist() == [ord("l"), 256 + 10, 256 + 24 + 40]


def test_steps_carry_the_state_that_a_sequence_has():
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(1)).eval()
    batch = inputs(6, 3)
    with torch.no_grad():
        together, (h, c) = policy(batch, policy.initial_state(3))
        state = policy.initial_state(3)
        for t in range(6):
            one, state = policy({k: v[t : t + 1] for k, v in batch.items()}, state)
            torch.testing.assert_close(one[0], together[t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state[0], h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state[1], c, rtol=1e-4, atol=1e-5)


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
