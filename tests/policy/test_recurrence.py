"""The linear recurrence against a loop that says what it is, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.policy.config import LAYERS, PolicyConfig
from nhzoo.policy.network import Policy, scan


def draw(*shape, seed, keep=False):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (torch.sigmoid(values) if keep else values).requires_grad_()


def by_steps(keep, new, state):
    out = []
    for t in range(len(keep)):
        state = keep[t] * state + new[t]
        out.append(state)
    return torch.stack(out)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_scan_is_the_loop_forward_and_backward(steps, batch, width, seed):
    leaves = [
        draw(steps, batch, width, seed=seed, keep=True),
        draw(steps, batch, width, seed=seed + 1),
        draw(batch, width, seed=seed + 2),
    ]
    weights = torch.randn(steps, batch, width)
    ours = scan(*leaves)
    grads = torch.autograd.grad((ours * weights).sum(), leaves)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    for function in (by_steps, scan):  # the second goes the road that GPUs take
        theirs = function(*doubles)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
        expected = torch.autograd.grad((theirs * weights.double()).sum(), doubles)
        for grad, other in zip(grads, expected, strict=True):
            torch.testing.assert_close(grad.double(), other, rtol=1e-4, atol=1e-5)


def test_the_parallel_scan_is_differentiated_right():
    leaves = [draw(5, 2, 3, seed=0, keep=True), draw(5, 2, 3, seed=1), draw(2, 3, seed=2)]
    assert torch.autograd.gradcheck(
        scan, [leaf.detach().double().requires_grad_() for leaf in leaves]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_up_in_float32(dtype):
    """In bfloat16 itself a state of 256 does not grow by 1 any more."""
    ones = torch.ones(2_000, 1, 1, dtype=dtype, requires_grad=True)
    out = scan(ones, ones * 1.0, torch.zeros(1, 1, dtype=dtype))
    assert out.dtype == dtype
    assert float(out[-1].detach()) == pytest.approx(2_000, rel=0.01)
    out[-1].sum().backward()
    assert ones.grad is not None and ones.grad.dtype == dtype


def test_scan_goes_on_where_it_stopped_and_takes_what_is_not_contiguous():
    keep, new = draw(8, 3, 6, seed=0, keep=True), draw(8, 6, 3, seed=1).transpose(1, 2)
    state = draw(3, 6, seed=2)
    whole = scan(keep, new, state)
    first = scan(keep[:5], new[:5], state)
    torch.testing.assert_close(torch.cat([first, scan(keep[5:], new[5:], first[-1])]), whole)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_core_is_the_minimal_lstm_of_its_paper(layer):
    """h_t = (f h_{t-1} + i W_h x) / (f + i): here of one layer, the others given no candidates."""
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(3))
    for other in set(range(LAYERS)) - {layer}:
        for parameter in getattr(policy, f"candidate{other}").parameters():
            torch.nn.init.zeros_(parameter)
    x = draw(7, 2, policy.config.hidden, seed=4).detach()
    state = torch.zeros(LAYERS, 2, policy.config.hidden)
    state[layer] = draw(2, policy.config.hidden, seed=5).detach()
    with torch.no_grad():
        found, reached = policy.run_core(x, state)
        h = state[layer]
        for t in range(7):
            read = x[t] / x[t].square().mean(-1, keepdim=True).add(1e-6).sqrt()
            f = getattr(policy, f"forget{layer}")(read).sigmoid()
            i = getattr(policy, f"input{layer}")(read).sigmoid()
            h = (f * h + i * getattr(policy, f"candidate{layer}")(read)) / (f + i)
            torch.testing.assert_close(found[t], x[t] + h, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(reached[layer], h, rtol=1e-4, atol=1e-5)


def test_it_remembers_by_default():
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(3))
    kept = torch.sigmoid(policy.forget0.bias) / (
        torch.sigmoid(policy.forget0.bias) + torch.sigmoid(policy.input0.bias)
    )
    assert kept.min() > 0.7
