"""DistributedDataParallel: two processes that share a batch train as one process with the whole of it."""

from __future__ import annotations

import pytest

from tests.nn.scripts import start, succeed

TRAIN = """
    import os
    import torch
    from torch.distributed import destroy_process_group, init_process_group
    from torch.nn.parallel import DistributedDataParallel
    from tests.nn.helpers import *

    rank = int(os.environ["RANK"])

    def loss(model, inputs, targets):
        return (model(inputs)[0] - targets).square().mean()

    def train(make):
        shared, alone = make(), make()
        parallel = DistributedDataParallel(shared, find_unused_parameters=False)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (shared, alone)]
        before = [parameter.detach().clone() for parameter in alone.parameters()]
        for iteration in range(2):
            inputs, targets = random(4, 6, INPUTS, seed=iteration), random(4, 6, 1, seed=iteration + 7)
            mine = slice(3 * rank, 3 * rank + 3)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss(parallel, inputs[:, mine], targets[:, mine]).backward()
            loss(alone, inputs, targets).backward()
            for actual, expected in zip(shared.parameters(), alone.parameters()):
                assert_close(actual.grad, expected.grad, EXACT)
            for optimizer in optimizers:
                optimizer.step()
        for actual, expected, old in zip(shared.parameters(), alone.parameters(), before):
            assert_close(actual, expected, EXACT)
            assert not torch.equal(actual, old)

    init_process_group("gloo", init_method=os.environ["STORE"], rank=rank, world_size=2)
    for name in sorted(MODELS.keys() - {"clipped"}):
        train(MODELS[name])
    destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    """All models but the one that clips: half a batch has other gradients to clip than the whole."""
    shared = {"STORE": f"file://{tmp_path / 'store'}", "GLOO_SOCKET_IFNAME": "lo"}
    succeed(*(start(TRAIN, RANK=str(rank), **shared) for rank in range(2)))


def test_a_program_that_fails_is_noticed():
    with pytest.raises(AssertionError, match="not today"):
        succeed(start("pass"), start("raise SystemExit('not today')"))
