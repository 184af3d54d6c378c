"""One step through `torch.compile` and `torch.export`."""

from __future__ import annotations

import pytest

from tests.nn.scripts import start, succeed

SHARED = """
    import torch
    from torch.utils import _pytree as pytree
    from tests.nn.helpers import *
"""

COMPILE = """
    deep = make_dnc(num_layers=2, read_heads=2, activation_gradient_clip=0.1)
    # A mask of what was written has a gradient before the first step alone, which would be another graph.
    optional = make_dnc(options=MemoryOptions(deallocation=True, masking=True, sharpness=True))
    for model in (deep, make_dnc(controller="feedforward"), make_dnc_with_own_controller(), optional, make_lstm()):
        compiled = torch.compile(model.step, fullgraph=True, backend="aot_eager")

        def steps(step):
            def run(inputs, state):
                outputs = []
                for step_input in inputs:
                    output, state = step(step_input, state)
                    outputs.append(output)
                return torch.stack(outputs), state

            return run

        given = random(3, 2, INPUTS), reached_state(model, 2)
        expected = measure(model, steps(model.step), *given)
        assert_same(measure(model, steps(compiled), *given), expected)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
"""

EXPORT = """
    class Step(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, step_input, state):
            return self.model.step(step_input, state)

    deep, optional = make_dnc(num_layers=2, read_heads=2), make_dnc(options=ALL_OPTIONS)
    for model in (deep, make_dnc(controller="feedforward"), make_dnc_with_own_controller(), optional, make_lstm()):
        given = random(2, INPUTS), reached_state(model, 2)
        any_batch = pytree.tree_map(lambda leaf: {0: torch.export.Dim.DYNAMIC}, given)
        exported = torch.export.export(Step(model), given, dynamic_shapes=any_batch).module()
        for batch_size in (2, 3, 7):
            given = random(batch_size, INPUTS), reached_state(model, batch_size)
            output, state = exported(*given)
            expected, expected_state = model.step(*given)
            assert_close(output, expected, EXACT)
            assert_same_state(state, expected_state)
"""


@pytest.mark.parametrize("script", [COMPILE, EXPORT], ids=["compile", "export"])
def test_a_traced_step_equals_the_eager_one(script):
    succeed(start(SHARED + script))
