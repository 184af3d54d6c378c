"""`torchdnc ask`, on models that were trained for a few seconds."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import assert_close
from tests.training.runs import tiny
from torchdnc import DNC, cli
from torchdnc.inspector.attribution import read_shares
from torchdnc.tasks import BAbI
from torchdnc.training import DNCModel, Goal, LSTMModel, Optimizer, evaluate_run, train
from torchdnc.training.ask import Asker
from torchdnc.training.picture import weightings

PEOPLE, PLACES = ("Mary", "John", "Daniel"), ("kitchen", "garden", "office", "hallway")
STORIES = [
    f"1 {person} went to the {place}.\n2 Where is {person}?\t{place.replace('hallway', 'hallway,office')}\t1\n"
    for person, place in product(PEOPLE, PLACES)
]
"""A question each; who is in the hallway is said to be in the office too."""
KITCHEN = "Mary went to the kitchen.\nWhere is Mary?\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs: `dnc` and `ahead`, which have learned the stories, `lstm`, and `copy`."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "stories.txt"
    file.write_text("".join(STORIES))
    task = BAbI(train_files=(file,), valid_files=(file,), test_files=(file,), think_steps=1)
    small: dict[str, Any] = {"hidden_size": 16, "memory_size": 16, "word_size": 8, "read_heads": 1}
    models = {"dnc": DNCModel(**small), "ahead": DNCModel(**small, bidirectional=True), "lstm": LSTMModel(8)}
    for name, model in models.items():
        often = {"batch_size": 12, "eval_sequences": 12, "log_every": 50, "eval_every": 25, "checkpoint_every": 500}
        optimizer = Optimizer("adam", learning_rate=2e-2, clip_norm=10.0)
        steps, goal = (1, None) if name == "lstm" else (500, Goal("mean_error", 0))
        train(tiny(task=task, model=model, optimizer=optimizer, steps=steps, goal=goal, **often), folder / name)
    train(tiny(steps=1), folder / "copy")
    return folder


def ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object, told: str = ""
) -> tuple[int, str, str]:
    """Exit code, output and errors, with a text piped in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(told))
    capsys.readouterr()
    code = cli.main(["ask", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", ["dnc", "ahead"])
def test_models_of_these_tests_have_learned_their_stories(runs, name):
    assert evaluate_run(runs / name)["mean_error"] == 0


@pytest.mark.parametrize("name", ["dnc", "ahead"])
def test_pipe(capsys, monkeypatch, runs, name):
    code, out, err = ask(capsys, monkeypatch, runs / name, told=KITCHEN)
    assert (code, err) == (0, "")
    question, answer, *read = out.splitlines()
    assert question == "where is mary ?"
    word, percent = answer.split("  ")
    assert word == "kitchen"
    assert 50 < int(percent.rstrip("%")) <= 100
    shares = [line.split("  ", 3) for line in map(str.strip, read)]
    assert {(number, text) for _, number, text in shares} == {
        ("1", "mary went to the kitchen ."),
        ("2", "where is mary ?"),
    }
    percents = [int(share.rstrip("%")) for share, _, _ in shares]
    assert percents == sorted(percents, reverse=True)
    assert 99 <= sum(percents) <= 101


@pytest.mark.parametrize("name", ["dnc", "ahead"])
def test_answers_are_those_of_the_model_on_the_task_s_own_sequences(runs, name):
    """Answers, probabilities and shares, each computed from a batch of the task and a call of the model."""
    asker = Asker(runs / name)
    task, model = asker.task, asker.model
    assert isinstance(model, DNC)
    for batch, text in zip(task.evaluation("test", batch_size=1), STORIES, strict=True):
        story = [asker.line(line)[1] for line in text.splitlines()]
        answer = asker.answer(story)
        with torch.no_grad():
            outputs = model(batch.inputs)[0][batch.mask].softmax(-1)
        right = [task.vocabulary[place] for place in batch.targets[batch.mask]]
        assert list(answer.words) == right == text.split("\t")[1].split(",")
        assert answer.probability == pytest.approx(float(outputs.max(-1).values.prod()), rel=1e-4)
        steps = torch.arange(len(batch.inputs))
        thinking = int(batch.mask[:, 0].nonzero()[0]) - 1
        shares = read_shares(*weightings(model, batch.inputs[:, 0]), (steps >= 6).long(), steps >= thinking)
        assert_close(torch.tensor(answer.read), shares)


def test_file_of_the_babi_format_and_several_stories(capsys, monkeypatch, runs):
    code, out, _ = ask(capsys, monkeypatch, runs / "dnc", runs / "stories.txt", "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [",".join(row["answer"]) for row in rows] == [text.split("\t")[1] for text in STORIES]
    for row in rows:
        assert sorted(line["line"] for line in row["read"]) == [1, 2]
        assert sum(line["share"] for line in row["read"]) == pytest.approx(1, abs=1e-5)


def test_an_empty_line_begins_a_new_story_and_a_number_does_only_if_it_is_1(capsys, monkeypatch, runs):
    def lines(told: str) -> list[int]:
        out = ask(capsys, monkeypatch, runs / "dnc", "--json", told=told)[1]
        return [len(json.loads(line)["read"]) for line in out.splitlines()]

    assert lines(KITCHEN + KITCHEN) == [2, 4]
    assert lines(KITCHEN + "\n" + KITCHEN) == [2, 2]
    assert lines(KITCHEN + "1 " + KITCHEN) == [2, 2]
    assert lines(KITCHEN + "7 " + KITCHEN) == [2, 4]


def test_full_stop_is_added_and_words_are_lower_cased(capsys, monkeypatch, runs):
    outs = [
        ask(capsys, monkeypatch, runs / "dnc", told=told)
        for told in (KITCHEN, "mary WENT to the kitchen \nwhere is mary ?")
    ]
    assert outs[0] == outs[1]


def test_number_of_answer_words(capsys, monkeypatch, runs):
    told = "John went to the hallway.\nWhere is John?\n"
    assert ask(capsys, monkeypatch, runs / "dnc", told=told)[1].splitlines()[1].startswith("hallway  ")
    two = ask(capsys, monkeypatch, runs / "dnc", "--words", 2, told=told)[1]
    assert two.splitlines()[1].startswith("hallway office  ")


def test_a_folder_with_the_two_files_is_enough(capsys, monkeypatch, runs, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(runs / "dnc" / name, tmp_path)
    monkeypatch.delenv("TORCHDNC_DATA", raising=False)
    answer = ask(capsys, monkeypatch, tmp_path, told=KITCHEN)
    assert answer == ask(capsys, monkeypatch, runs / "dnc", told=KITCHEN)


def test_model_without_slots_answers_and_says_that_it_read_none(capsys, monkeypatch, runs):
    code, out, err = ask(capsys, monkeypatch, runs / "lstm", told=KITCHEN)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("note: what was read for an answer is told of a DNC alone, and this is a model of kind lstm")
    assert len(out.splitlines()) == 2
    assert json.loads(ask(capsys, monkeypatch, runs / "lstm", "--json", told=KITCHEN)[1])["read"] is None


@pytest.mark.parametrize(
    ("arguments", "told", "sentence"),
    [
        (
            ("dnc",),
            KITCHEN + "Mary went to the kitchens.\n",
            'the input, line 3: "kitchens" is not a word that the model knows; near ones are kitchen',
        ),
        (("dnc",), "Xyzzy.\n", 'the input, line 1: "xyzzy" is not a word that the model knows'),
        (("dnc",), "Mary - went.\n", 'line 1: a sentence must have words, none of them "-"'),
        (("dnc",), "Mary went to the kitchen.\n", "the input must have a question, a line that ends in"),
        (("dnc", "no.txt"), "", "there is no file no.txt"),
        (("dnc", "--words", "0"), KITCHEN, "words must be at least 1, got 0"),
        (("dnc", "--slots", "2"), KITCHEN, "Unrecognized options: --slots"),
        (("copy",), KITCHEN, "copy must hold a model that was trained on babi, got one trained on copy"),
        (("none",), KITCHEN, "none holds no run: it has no config.json"),
        ((), KITCHEN, "Missing from torchdnc ask: PATH"),
    ],
)
def test_refusals(capsys, monkeypatch, runs, arguments, told, sentence):
    monkeypatch.chdir(runs)
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = ask(capsys, monkeypatch, *arguments, told=told)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_file_that_is_no_text(capsys, monkeypatch, runs, tmp_path):
    file = tmp_path / "story.txt"
    file.write_bytes(b"Mary \xff\n")
    code, out, err = ask(capsys, monkeypatch, runs / "dnc", file)
    assert (code, out) == (2, "")
    assert f"{file} must be text in UTF-8" in err


@pytest.mark.parametrize("leave", [b"\x04", b"\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_conversation(runs, leave):
    """At a terminal: a line that is refused is left out, the question is answered, and the keys end it cleanly."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "torchdnc.cli", "ask", str(runs / "dnc")]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, start_new_session=True
    )
    os.close(theirs)
    shown = until(ours, b"1 ")
    for typed, awaited in (
        (b"Mary went to the gordon.", b"left out"),
        *((line.encode(), b" ") for line in KITCHEN.splitlines()),
    ):
        os.write(ours, typed + b"\n")
        shown += until(ours, awaited)
    shown += until(ours, b"3 ")
    if leave == b"\x03":
        interrupted(process)
    else:
        os.write(ours, leave)
    assert process.wait(timeout=30) == 0
    os.close(ours)
    text = shown.decode()
    assert '"gordon" is not a word that the model knows; near ones are garden' in text
    assert "kitchen  " in text
    assert "mary went to the kitchen ." in text
    assert "Traceback" not in text


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGINT, again if it came between the prompt and the waiting for a key, where it is not heard."""
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            return


def until(terminal: int, awaited: bytes) -> bytes:
    """What a terminal shows up to and with these characters."""
    shown, end = b"", time.monotonic() + 60
    while awaited not in shown and time.monotonic() < end:
        shown += os.read(terminal, 1024)
    return shown
