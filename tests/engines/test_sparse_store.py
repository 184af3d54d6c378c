"""Sparse memories in files: saved and loaded, larger than what is held, and left whole by a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import assert_close
from tests.engines.test_sparse import I, assert_same, drawn, make, numbers
from torchdnc.engines.sparse.states import SparseState
from torchdnc.engines.sparse.store import PENDING, Store


@pytest.mark.parametrize("sizes", [{}, {"links": False, "controller": "feedforward"}, {"memory_size": 100}], ids=str)
def test_a_state_comes_back_as_it_was_saved(sizes, tmp_path):
    model = make(**sizes)
    state = model(drawn(12, 3, I), None, torch.tensor([12, 0, 5]))[1].detach()
    state.save(tmp_path / "state.safetensors")
    model(drawn(5, 3, I, seed=4), state)
    loaded = SparseState.load(tmp_path / "state.safetensors")
    assert_same(loaded, numbers(state))
    inputs = drawn(9, 3, I, seed=2)
    assert_close(model(inputs, loaded)[0], model(inputs, state)[0], 0)


def test_an_empty_state_comes_back(tmp_path):
    model = make()
    model.initial_state(2).save(tmp_path / "state")
    inputs = drawn(9, 2, I)
    assert_close(model(inputs, SparseState.load(tmp_path / "state"))[0], model(inputs)[0], 0)


def test_a_state_of_a_single_sequence_comes_back(tmp_path):
    model, inputs = make(read_heads=1), drawn(9, I)
    _, state = model(inputs)
    state.detach().save(tmp_path / "state")
    again = SparseState.load(tmp_path / "state")
    assert_close(model(inputs, again)[0], model(inputs, state)[0], 0)
    assert_close(model(inputs, state.to(torch.float64))[0], model(inputs, state)[0], 0)
    with pytest.raises(ValueError, match="rows can be taken of a state with a batch dimension"):
        state[:]


def test_torn_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "state"
    make()(drawn(12, 3, I))[1].save(path)
    whole = path.read_bytes()
    for content in (whole[:-7], whole[:20], b"", b"something else entirely" * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is torn, or no file of tensors"):
            SparseState.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        SparseState.load(tmp_path / "nothing")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="was not written by a sparse memory's state"):
        SparseState.load(path)


@torch.no_grad()
def run_stored(model, folder, pieces):
    """Outputs of some calls on a memory in a directory, and the state after them."""
    model.storage = folder
    outputs, state = [], model.initial_state(2)
    for t in range(pieces):
        output, state = model(drawn(5, 2, I, seed=t), state)
        outputs.append(output)
        state.flush()
    return outputs, state


@pytest.mark.parametrize(
    "sizes", [{"memory_size": 7}, {"memory_size": 300}, {"links": False, "memory_size": 300}], ids=str
)
def test_a_stored_memory_is_the_one_in_ram(sizes, tmp_path):
    model = make(**sizes)
    outputs, state = run_stored(model, tmp_path / "memory", 6)
    expected, other = [], None
    with torch.no_grad():
        for t in range(6):
            output, other = model_in_ram(sizes)(drawn(5, 2, I, seed=t), other)
            expected.append(output)
    assert_close(torch.cat(outputs), torch.cat(expected), 0)
    assert_same(state, numbers(other))
    del state
    opened = model.stored_state()
    assert_same(opened, numbers(other))
    with torch.no_grad():
        assert_close(model(drawn(5, 2, I, seed=9), opened)[0], model_in_ram(sizes)(drawn(5, 2, I, seed=9), other)[0], 0)


def model_in_ram(sizes):
    return make(**sizes)


@torch.no_grad()
def test_what_is_not_flushed_is_not_there(tmp_path):
    model = make(memory_size=300)
    _, state = run_stored(model, tmp_path / "memory", 3)
    noted = [number.clone() for number in numbers(state)]
    _, later = model(drawn(20, 2, I, seed=7), state)
    # The older state reads as it did, too.
    assert_same(state, noted)
    del state, later
    assert_same(model.stored_state(), noted)


@torch.no_grad()
def test_much_that_has_changed_is_flushed_by_the_call(tmp_path, monkeypatch):
    from torchdnc.engines.sparse import store

    monkeypatch.setattr(store, "FLUSH_AT", 10)
    model = make(memory_size=300)
    model.storage = tmp_path / "memory"
    _, state = model(drawn(20, 2, I), model.initial_state(2))
    noted = [number.clone() for number in numbers(state)]
    del state
    assert_same(model.stored_state(), noted)


@torch.no_grad()
def test_a_flush_that_was_cut_off_is_finished(tmp_path, monkeypatch):
    """After its file has its name it counts, before that it does not."""
    folder = tmp_path / "memory"
    model = make(memory_size=300)
    _, state = run_stored(model, folder, 2)
    before = [number.clone() for number in numbers(state)]
    _, state = model(drawn(5, 2, I, seed=7), state)
    after = [number.clone() for number in numbers(state)]

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_apply", dies)
        with pytest.raises(KeyboardInterrupt):
            state.flush()
    del state
    assert (folder / PENDING).exists()
    (folder / f"{PENDING}.part").write_bytes(b"of another flush, cut off")
    assert_same(model.stored_state(), after)
    assert not (folder / PENDING).exists()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=False))


@torch.no_grad()
def test_there_may_be_more_slots_than_there_is_ram_for(tmp_path):
    """The files have room for them, of which the disk holds what was written."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    slots = int(1.2 * ram) // (32 * 4)
    model = make(memory_size=slots, word_size=32, dtype=torch.float32, storage=tmp_path / "memory")
    small = make(memory_size=100, word_size=32, dtype=torch.float32)
    inputs = drawn(20, 1, I, dtype=torch.float32)
    outputs, state = model(inputs, model.initial_state(1))
    state.flush()
    assert (tmp_path / "memory" / "content.bin").stat().st_size > ram
    del state
    expected, other = small(inputs)
    assert_close(outputs, expected, 1e-6)
    assert_close(model(inputs, model.stored_state())[0], small(inputs, other)[0], 1e-5)


@torch.no_grad()
def test_a_storage_that_was_not_finished_is_made_anew(tmp_path, monkeypatch):
    from torchdnc.engines.sparse import store

    monkeypatch.chdir(tmp_path)
    model = make(memory_size=30)
    model.storage = "memory"
    with monkeypatch.context() as patch:
        patch.setattr(
            vars(store)["os"], "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space"):
            model.initial_state(2)
    state = model.initial_state(2)
    monkeypatch.chdir("/")
    model(drawn(5, 2, I), state)[1].flush()


def test_files_with_other_numbers_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "state"
    make(memory_size=20)(drawn(12, 2, I))[1].detach().save(path)
    whole = load_file(path)
    changes = {
        "counts": whole["counts"] * 0 + 99_999_999,
        "rows.content": whole["rows.content"][:, :-4].contiguous(),
        "read_slots": whole["read_slots"] + 50,
        "rows.back_slots": whole["rows.back_slots"] + 50,
        "read_weights": whole["read_weights"].float(),
        "sizes": whole["sizes"] * -1,
    }
    for name, value in changes.items():
        save_file(whole | {name: value}, path, {"format": "torchdnc sparse memory 1"})
        with pytest.raises(ValueError, match="does not hold a whole state"):
            SparseState.load(path)


@torch.no_grad()
def test_storage_is_refused_by_a_sentence(tmp_path):
    model = make(memory_size=30)
    with pytest.raises(ValueError, match="storage must be a directory for a stored state, got None"):
        model.stored_state()
    model.storage = tmp_path
    with pytest.raises(ValueError, match="is not the storage of a sparse memory"):
        model.stored_state()
    state = model.initial_state(2)
    with pytest.raises(ValueError, match="storage must be a new or an empty directory"):
        model.initial_state(2)
    with pytest.raises(ValueError, match="is open in another process"):
        model.stored_state()
    with torch.enable_grad(), pytest.raises(ValueError, match="storage is for inference"):
        model(drawn(3, 2, I), state)
    with pytest.raises(ValueError, match="flush needs a memory with a storage"):
        make().initial_state(1).flush()
    del state
    other = make(memory_size=30, links=False)
    other.storage = tmp_path
    with pytest.raises(ValueError, match=r"state\.memory must have"):
        other.stored_state()
    with open(tmp_path / "content.bin", "r+b") as file:
        file.truncate(5)
    with pytest.raises(ValueError, match=r"content\.bin must have \d+ bytes, got 5"):
        model.stored_state()


KILLED = """
import sys, torch
from tests.engines.test_sparse import I, drawn, make
model = make(memory_size=200, dtype=torch.float64)
model.storage = sys.argv[1]
with torch.no_grad():
    state = model.initial_state(2)
    for t in range(10_000):
        _, state = model(drawn(5, 2, I, seed=t), state)
        state.flush()
        print(t, flush=True)
"""


def test_a_killed_process_leaves_the_last_flush_behind(tmp_path):
    for turn, seconds in enumerate((0.0, 0.05, 0.17)):
        folder = tmp_path / str(turn)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            last = [0, *map(int, process.stdout.read().split())][-1]
        model = make(memory_size=200)
        model.storage = folder
        found = numbers(model.stored_state())
        with torch.no_grad():
            state = None
            candidates = []
            for t in range(last + 2):
                _, state = make(memory_size=200)(drawn(5, 2, I, seed=t), state)
                candidates.append([number.clone() for number in numbers(state)])
        # The flush behind the last one that was told may have counted already.
        assert any(len(one) == len(found) and all(map(torch.equal, one, found)) for one in candidates[-2:])
