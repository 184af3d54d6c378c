"""The commands, as a user types them: what they print and the codes they exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.runs import TINY, assert_same_run, tiny, uninterrupted
from torchdnc import cli
from torchdnc.commands import data, demo
from torchdnc.tasks import TASKS
from torchdnc.tasks.data import Status
from torchdnc.training import MODELS, DNCModel, Goal, LSTMModel, RunConfig, evaluate_run, recipe_names
from torchdnc.training.folder import read_config
from torchdnc.training.plain import to_toml
from torchdnc.training.seeds import read_seeds


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Sentences are not broken into lines.
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def recipe() -> str:
    return written(TINY, "tiny.toml")


def written(config: RunConfig, name: str) -> str:
    Path(name).write_text(to_toml(config.to_dict()))
    return name


def run(*arguments: str) -> int:
    """The exit code of a command, also where the parser ends the program itself."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which a command is refused: one line, nothing else, exit code 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for command in ("train", "eval", "ask", "tasks", "data", "demo", "bench"):
        assert f"\n  {command} " in text
        assert run(command, "--help") == 0
        assert f"torchdnc {command}" in capsys.readouterr().out
    assert run() == 2


def test_help_of_a_recipe_has_every_option(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    assert run("train", "--help") == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in recipe_names())
    assert run("train", recipe, "--help") == 0
    text = capsys.readouterr().out
    for option in (
        "steps",
        "task.max-length",
        "model.memory-size",
        "optimizer.learning-rate",
        "seeds",
        "out",
    ):
        assert f"--{option} " in text
    assert "(default: 12)" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"torchdnc {version('torchdnc')}\n"


def test_train_with_options(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    options = ["--steps", "7", "--task.max-length", "2", "--optimizer.clip-norm", "None", "--seed", "4"]
    assert run("train", recipe, *options, "--out", "run") == 0
    text = capsys.readouterr().out
    assert "steps = 7\n" in text
    assert "max_length = 2\n" in text
    assert "clip_norm" not in text
    assert "finished at step 7" in text
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert (config["steps"], config["seed"], config["task"]["max_length"]) == (7, 4, 2)
    assert config["optimizer"]["clip_norm"] is None
    # The printed configuration is a recipe.
    Path("again.toml").write_text(text[: text.index("training in")])
    assert run("train", "again.toml", "--out", "again") == 0
    assert_same_run(Path("run"), Path("again"))


@pytest.mark.parametrize("asked", [["--model", "lstm"], ["--model=lstm"], ["--model", "dnc", "--model", "lstm"]])
def test_a_recipe_with_another_model(recipe: str, asked: list[str]) -> None:
    assert run("train", recipe, *asked, "--steps", "1", "--out", "run") == 0
    model = json.loads(Path("run/config.json").read_text())["config"]["model"]
    plain = {"num_layers": 1, "activation_gradient_clip": 10.0, "input_gain": 1.0}
    assert model == {"kind": "lstm", "hidden_size": 8} | plain
    assert run("train", recipe, *asked, "--model.hidden-size", "5", "--steps", "1", "--out", "other") == 0
    assert json.loads(Path("other/config.json").read_text())["config"]["model"] == model | {"hidden_size": 5}


def test_help_names_every_kind_of_model(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    for arguments in (["--help"], [recipe, "--help"]):
        assert run("train", *arguments) == 0
        assert "dnc, ntm, lstm or super-lstm" in capsys.readouterr().out
    assert list(MODELS) == ["dnc", "sparse-dnc", "ntm", "lstm", "super-lstm"]


@pytest.mark.parametrize("count", ["recipe", "run", "number"])
def test_a_baseline_has_as_many_parameters(capsys: pytest.CaptureFixture[str], recipe: str, count: str) -> None:
    dnc = uninterrupted(Path("dnc"), steps=1, model=DNCModel(60, 4, 4, 1))
    wanted, larger = numbers_in(dnc), written(read_config(dnc)[0], "larger.toml")
    given = {"recipe": larger, "run": "dnc", "number": str(wanted)}[count]
    assert run("train", recipe, "--model", "lstm", "--match-parameters", given, "--steps", "1", "--out", "run") == 0
    found = numbers_in(Path("run"))
    assert found == pytest.approx(wanted, rel=0.02)
    assert f"\n# {found:,} parameters\n" in capsys.readouterr().out
    assert json.loads(Path("run/config.json").read_text())["parameters"] == found


def numbers_in(folder: Path) -> int:
    """How many numbers a run's weights are."""
    return sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def test_folder_of_a_run_is_new(recipe: str) -> None:
    for _ in range(2):
        assert run("train", recipe, "--steps", "1") == 0
    assert [path.name.startswith("tiny-2") for path in Path("runs").iterdir()] == [True, True]


def test_resume(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    assert run("train", recipe, "--max-minutes", "1e-6", "--out", "run") == 0
    assert "go on with: torchdnc train --resume run\n" in capsys.readouterr().out
    assert run("train", "--resume", "run", "--max-minutes", "5") == 0
    assert "going on at step 1 in run\n" in capsys.readouterr().out
    assert_same_run(Path("run"), uninterrupted(Path("whole")))


def test_unreached_goal_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", written(tiny(goal=Goal("wrong_bits", -1)), "r.toml")) == 0
    assert "the goal was not reached: wrong_bits at most -1" in capsys.readouterr().out
    assert run("train", written(tiny(goal=Goal("wrong_bits", 1)), "r.toml")) == 0
    assert "solved at step 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("fly", "there is no command fly: the commands are train, eval, ask, study, tasks, data, demo, bench"),
        ("train nothing", "there is no recipe nothing: give the path of a .toml file or one of associative"),
        ("train nothing.toml", "there is no recipe nothing.toml"),
        ("train --steps 3 tiny.toml", "the recipe must come first, got '--steps'"),
        (
            "train tiny.toml --stepz 3",
            "Unrecognized options: --stepz, 3; see torchdnc train tiny.toml --help",
        ),
        ("train tiny.toml --steps many", "Error parsing --steps: invalid literal for int()"),
        ("train tiny.toml --steps 0", "steps must be at least 1, got 0"),
        ("train tiny.toml --task.bits 0", "bits must be at least 1, got 0"),
        ("train tiny.toml --model.hidden-size 0", "hidden_size must be at least 1, got 0"),
        ("train tiny.toml --model.controller gru", "invalid choice 'gru'"),
        ("train tiny.toml --model gru", "model must be one of 'dnc', 'sparse-dnc', 'ntm', 'lstm', 'super-lstm', got"),
        ("train tiny.toml --model=gru", "model must be one of 'dnc', 'sparse-dnc', 'ntm', 'lstm', 'super-lstm', got"),
        ("train tiny.toml --model", "Missing value for argument '--model'"),
        ("train tiny.toml --model lstm --model.read-heads 2", "Unrecognized options: --model.read-heads, 2"),
        ("train tiny.toml --match-parameters none", "there is no recipe none"),
        ("train tiny.toml --match-parameters 0", "match_parameters must be at least 1, got 0"),
        (
            "train tiny.toml --match-parameters 150",
            "hidden_size of dnc comes within 2% of, got 150: 1 makes 96 and 2 makes 166",
        ),
        ("train tiny.toml --match-parameters full --model.hidden-size 9", "--model.hidden-size cannot be given too"),
        ("train tiny.toml --match-parameters full --model.hidden_size=9", "--model.hidden-size cannot be given too"),
        ("train tiny.toml --optimizer.momentum 0.9", 'momentum belongs to "rmsprop", got 0.9 with "adam"'),
        ("train tiny.toml --optimizer.clip-value 3", "exclude each other, got 10.0 and 3.0"),
        ("train tiny.toml --out full", "full must be a new or empty folder"),
        ("train tiny.toml --out full --seeds 2", "full must be a new or empty folder"),
        ("train tiny.toml --seeds 0", "seeds must be at least 1, got 0"),
        ("train tiny.toml --resume full", "Unrecognized options: tiny.toml"),
        ("train --resume none", "none holds no run: it has no config.json"),
        ("train --resume full --seed 3", "Unrecognized options: --seed"),
        ("train --resume full --steps 0", "steps must be at least 1, got 0"),
        ("train --resume", "Missing value for argument '--resume'"),
        ("tasks juggle", "there is no task juggle: the tasks are copy"),
        ("data mnist", "invalid choice 'mnist'"),
        ("eval", "Missing from torchdnc eval: PATH"),
        ("eval none", "none holds no run"),
        ("eval full --memory-size 8", "memory_size cannot be set: the model of full (lstm) has no memory"),
        ("eval full --sequences 0", "sequences must be at least 1, got 0"),
        ("eval full --data-dir here", "data_dir cannot be set: the task of full (copy) reads no data"),
        ("train tiny.toml --data-dir here", "Unrecognized options: --task.data-dir, here"),
        ("train babi-dnc --data-dir here", "there is no qa1_*_train.txt in here/"),
        ("train babi-dnc --data_dir=here", "there is no qa1_*_train.txt in here/"),
        ("eval full --speed 8", "Unrecognized options: --speed"),
        ("demo --out full", "full must be a new or empty folder"),
        ("bench speed", "invalid choice 'speed'"),
        ("bench --threads 0", "threads must be at least 1, got 0"),
        ("bench --threads 100000", "the cores of this machine, got 100000"),
        ("bench --rounds 0", "rounds must be at least 1, got 0"),
        (
            "bench --rounds many",
            "Error parsing --rounds: no type matching {None}|INT could be instantiated from ['many']",
        ),
        ("bench --fast", "Unrecognized options: --fast"),
        ("bench --out tiny.toml", "out must be a folder, got the file tiny.toml"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], recipe: str, command: str, sentence: str) -> None:
    if "full" in command:
        uninterrupted(Path("full"), steps=1, model=LSTMModel(8))
    assert sentence in refusal(capsys, *command.split())
    assert not Path("runs").exists()


def test_tensorboard_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "tensorboard must be installed" in refusal(capsys, "train", recipe, "--tensorboard")
    assert not Path("runs").exists()


def test_failed_run(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    # The first update is a few times the learning rate, which no float32 holds.
    options = ["--optimizer.name", "rmsprop", "--optimizer.learning-rate", "3e38", "--optimizer.epsilon", "1e-12"]
    assert run("train", recipe, *options, "--out", "run") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: loss is ")
    assert "training stopped; no checkpoint was saved before" in err
    assert err.count("\n") == 1


def test_error_of_the_system(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    Path("file").touch()
    assert run("train", recipe, "--out", "file/run") == 1
    assert capsys.readouterr().err == "error: file/run: Not a directory\n"


def test_faults_of_our_own_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    def fault(*_: object) -> None:
        raise ValueError("not the user's doing")

    monkeypatch.setattr("torchdnc.training.loop.update", fault)
    with pytest.raises(ValueError, match="not the user's doing"):
        run("train", recipe, "--out", "run")


def test_interrupt(recipe: str) -> None:
    command = [sys.executable, "-m", "torchdnc.cli", "train", recipe, "--steps", "100000", "--out", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = Path("run/metrics.jsonl")
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert out.endswith("saved in run\ngo on with: torchdnc train --resume run\n")
    assert "\x1b" not in out
    step = int(out[out.index("interrupted at step ") :].split()[3].rstrip(","))
    assert run("train", "--resume", "run", "--steps", str(step + 5)) == 0
    assert_same_run(Path("run"), uninterrupted(Path("whole"), steps=step + 5))


def test_seeds(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    assert run("train", recipe, "--seeds", "2", "--seed", "3", "--out", "seeds") == 0
    text = capsys.readouterr().out
    _, _, runs = read_seeds(Path("seeds"))
    assert [ended.seed for ended in runs] == [3, 4]
    scores = [(ended.scores or {})["wrong_bits"] for ended in runs]
    mean = sum(scores) / 2
    deviation = (sum((score - mean) ** 2 for score in scores) / 1) ** 0.5
    assert f"  {'wrong_bits':24}{mean:.4g} ± {deviation:.4g}\n" in text
    assert f"  {'solved':24}0 of 2\n" in text
    assert text.count("\nseed 3: finished at step 12") == text.count("\nseed 4: finished at step 12") == 1
    before = Path("seeds/seed-3/training.safetensors").stat().st_mtime_ns
    assert run("train", "--resume", "seeds") == 0
    assert Path("seeds/seed-3/training.safetensors").stat().st_mtime_ns == before
    assert "cannot change while several seeds are resumed" in refusal(
        capsys, "train", "--resume", "seeds", "--steps", "30"
    )


def test_eval(capsys: pytest.CaptureFixture[str]) -> None:
    uninterrupted(Path("run"))
    options = ["--length", "5", "--memory-size", "8", "--sequences", "20", "--batch-size", "10"]
    expected = evaluate_run("run", length=5, memory_size=8, sequences=20, batch_size=10)
    assert run("eval", "run", *options, "--json") == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert run("eval", "run", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [[name, f"{value:.4g}"] for name, value in expected.items()]


def test_eval_with_too_many_slots(capsys: pytest.CaptureFixture[str]) -> None:
    uninterrupted(Path("run"), steps=1)
    assert "memory_size must be small enough" in refusal(capsys, "eval", "run", "--memory-size", "100000000")


@pytest.mark.parametrize("arguments", ["tasks copy", "train --help", "eval --help"])
def test_closed_pipe(arguments: str) -> None:
    """The reader is gone before a line is written: no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "torchdnc.cli", *arguments.split()]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tasks") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TASKS)
    assert run("tasks", "copy") == 0
    text = capsys.readouterr().out
    task = TASKS["copy"]()
    assert text.startswith("Repeat a sequence")
    assert text.endswith(task.render(task.sample(1, seed=0, step=0)) + "\n")


def test_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [
        Status(Path("here"), ("a", "b"), ("c",), ("d",)),
        Status(Path("here"), ("a", "b"), ("c",), ("d",)),
        Status(Path("here"), ("a", "b", "c", "d"), (), ()),
        Status(Path("here"), ("a", "b", "c", "d"), (), ()),
    ]
    asked: list[Path | None] = []
    monkeypatch.setattr(data, "babi_status", lambda folder: statuses.pop(0))

    def fetch(folder: Path | None, progress: data.Percent) -> None:
        asked.append(folder)
        for done in range(0, 2_000_001, 50_000):
            progress(done, 2_000_000)

    monkeypatch.setattr(data, "fetch_babi", fetch)
    assert run("data", "babi", "--no-download") == 1
    assert capsys.readouterr().out == "2 files in here\nabsent: c\naltered: d\n"
    assert asked == []
    assert run("data", "babi", "--data-dir", "there") == 0
    text = capsys.readouterr().out
    assert text.startswith("2 files in here\nabsent: c\naltered: d\ndownloading\n10% of 2.0 MB\n20% of")
    assert text.endswith("90% of 2.0 MB\n100% of 2.0 MB\n4 files in here\n")
    assert asked == [Path("there")]
    assert run("data", "babi") == 0
    assert asked == [Path("there")]


def test_data_out_of_reach(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(folder: Path | None, progress: object) -> None:
        raise ConnectionError("the bAbI data could not be fetched: no network")

    monkeypatch.setattr(data, "babi_status", lambda folder: Status(Path("here"), (), ("c",), ()))
    monkeypatch.setattr(data, "fetch_babi", unreachable)
    assert run("data", "babi") == 1
    assert capsys.readouterr().err == "error: the bAbI data could not be fetched: no network\n"


def test_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    solved, unsolved = (
        written(tiny(goal=Goal("wrong_bits", bound), batch_size=100), f"{bound}.toml") for bound in (1, -1)
    )
    monkeypatch.setattr(demo, "find_recipe", lambda name: Path({"copy-demo": solved}[name]))
    assert run("demo", "--out", "demo") == 0
    text = capsys.readouterr().out
    for length in (10, 20):
        wrong = 100 * evaluate_run("demo", length=length, memory_size=8)["wrong_bits"]
        assert f"length {length}, 8 slots: {wrong:.3g}% wrong bits" in text
    # Three vectors: three steps to read, a delimiter, three to answer; four slots for two heads.
    assert text.count("\n   write 0123456\n       0") == 1
    assert text.count("\n  read 1 0123456\n       0") == 1
    assert "The run is saved in demo. What to try next:\n  torchdnc eval demo" in text
    monkeypatch.setattr(demo, "find_recipe", lambda name: Path({"copy-demo": unsolved}[name]))
    assert run("demo", "--out", "other") == 1
