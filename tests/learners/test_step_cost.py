"""Operations, bytes and operators of a step, against a layer whose numbers are known."""

import torch
from torch.nn import Linear

from hanse.learners import step_cost


def _layer() -> tuple[Linear, step_cost.Loss]:
    torch.manual_seed(0)
    layer, rows = Linear(64, 32, bias=False), torch.rand(16, 64)
    return layer, lambda: layer(rows).sum()


def test_a_product_has_its_operations_bytes_and_operators() -> None:
    layer, loss = _layer()
    cost = step_cost.count(loss, [layer.weight], tokens=16)
    product = 2 * 16 * 64 * 32
    assert (cost.forward.flops, cost.backward.flops) == (product, product)  # of the weight alone
    moved = 4 * (16 * 64 + 64 * 32 + 16 * 32)
    assert cost.forward.bytes == moved + 4 * (16 * 32 + 1)  # the product, then its sum
    assert cost.forward.operators == 2
    assert cost.optimizer.bytes == 28 * 64 * 32 and cost.optimizer.flops == 0
    assert layer.weight.grad is None


def test_without_gradients_a_step_is_two_forward_passes() -> None:
    _, loss = _layer()
    cost = step_cost.count(loss, [], tokens=16)
    assert cost.backward == cost.forward and cost.optimizer.bytes == 0


def test_a_scaled_step() -> None:
    layer, loss = _layer()
    cost = step_cost.count(loss, [layer.weight], tokens=16).of(tokens=32)
    assert cost.forward.flops == 2 * 2 * 16 * 64 * 32 and cost.forward.operators == 2


def test_the_seconds_of_passes_are_measured() -> None:
    layer, loss = _layer()
    forward, backward = step_cost.seconds(loss, [layer.weight], torch.device("cpu"))
    assert 0 < forward < 1 and 0 < backward < 1 and layer.weight.grad is None


def test_saved_tensors_count_once_and_without_the_weights() -> None:
    layer = Linear(64, 32, bias=False)
    rows = torch.rand(16, 64, requires_grad=True)

    def loss() -> torch.Tensor:
        out = layer(rows).relu()
        return (out * out).sum()

    # The product keeps its input, relu its result, and the square the same result again.
    assert step_cost.saved_bytes(loss, [layer.weight]) == 4 * (16 * 64 + 16 * 32)
