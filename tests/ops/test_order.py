"""Each part of a step sees the others before or after their update as in the paper; other orders are told."""

import numpy as np
import pytest

from tests import oracle
from tests.conftest import assert_only_close
from tests.ops.inputs import Sizes, double, interface_of, ordinary, state_fields, state_of
from torchdnc.ops import access


def step(**fixed):
    """Interface, the state before and after a step as arrays, and what was read."""
    values = ordinary(Sizes(2, 5, 3, 2))
    for name, value in fixed.items():
        values[name][:] = value
    given = {name: double(value) for name, value in values.items()}
    words, state = access(interface_of(given), state_of(given))
    new = {name: getattr(state, name).numpy() for name in state_fields()}
    return values, new, words.numpy()


@pytest.fixture
def stepped():
    return step()


def test_usage_counts_the_write_and_frees_the_reads_of_the_step_before(stepped):
    old, new, _ = stepped

    def used(written, read):
        return oracle.usage(
            old["usage"], written["write_weights"], oracle.retention(old["free_gates"], read["read_weights"])
        )

    assert_only_close(double(new["usage"]), used(old, old), used(new, old), used(old, new), used(new, new))


def test_what_was_written_at_the_step_before_can_be_freed(stepped):
    # The paper frees after the union with the last write, and not before it.
    old, new, _ = stepped
    psi = oracle.retention(old["free_gates"], old["read_weights"])
    freed_last = oracle.usage(old["usage"], old["write_weights"], psi)
    freed_first = oracle.usage(old["usage"] * psi, old["write_weights"], np.ones_like(psi))
    assert_only_close(double(new["usage"]), freed_last, freed_first)


def test_allocation_goes_by_the_new_usage():
    old, new, _ = step(alloc_gate=1.0, write_gate=1.0)
    by_new, by_old = oracle.allocation_weights(new["usage"]), oracle.allocation_weights(old["usage"])
    assert_only_close(double(new["write_weights"]), by_new, by_old)


def test_the_write_key_is_looked_up_in_the_old_memory():
    old, new, _ = step(alloc_gate=0.0, write_gate=1.0)
    sought = old["write_key"], old["write_strength"]
    in_old, in_new = [oracle.content_weights(memory["memory"], *sought) for memory in (old, new)]
    assert_only_close(double(new["write_weights"]), in_old, in_new)


def test_links_are_made_from_the_old_precedence(stepped):
    old, new, _ = stepped
    from_old, from_new = [oracle.link(old["link"], before["precedence"], new["write_weights"]) for before in (old, new)]
    assert_only_close(double(new["link"]), from_old, from_new)


def test_links_are_made_by_the_new_write(stepped):
    old, new, _ = stepped
    ends = old["link"], old["precedence"]
    by_new, by_old = [oracle.link(*ends, write["write_weights"]) for write in (new, old)]
    assert_only_close(double(new["link"]), by_new, by_old)


def test_the_read_keys_are_looked_up_in_the_new_memory():
    old, new, _ = step(read_modes=[0.0, 1.0, 0.0])
    sought = old["read_keys"], old["read_strengths"]
    in_new, in_old = [oracle.content_weights(memory["memory"], *sought) for memory in (new, old)]
    assert_only_close(double(new["read_weights"]), in_new, in_old)


def directions(links, read):
    return oracle.directional_weights(links["link"], read["read_weights"])


def test_heads_move_from_where_they_were_along_the_new_links():
    old, new, _ = step(read_modes=[0.0, 0.0, 1.0])
    (right, _), (stale, _), (late, _) = directions(new, old), directions(old, old), directions(new, new)
    assert_only_close(double(new["read_weights"]), right, stale, late)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_read_modes_are_backward_then_content_then_forward(mode):
    old, new, _ = step(read_modes=np.eye(3)[mode])
    forward, backward = directions(new, old)
    content = oracle.content_weights(new["memory"], old["read_keys"], old["read_strengths"])
    ways = [backward, content, forward]
    right = ways.pop(mode)
    assert_only_close(double(new["read_weights"]), right, *ways)


def test_words_are_read_from_the_new_memory_with_the_new_weights(stepped):
    old, new, words = stepped

    def read(memory, where):
        return oracle.read_words(memory["memory"], where["read_weights"])

    assert_only_close(double(words), read(new, new), read(old, new), read(new, old))
