"""What benchmarks/learning.py found on all 20 bAbI tasks jointly, in words and tables, beside what papers report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torchdnc.bench.text import NONE, prose, table
from torchdnc.training.seeds import mean_and_deviation

Records = Mapping[str, dict[str, Any]]
"""What learning.py wrote, by the study's name."""

SHORT = "babi-short"
"""The study that those of one change each are compared with; their names begin with its."""
TASKS = tuple(range(1, 21))
RATHER_LATE = 0.75
"""Share of a run's seconds behind which it is asked how fast its error still fell."""
HEAD = """## bAbI, all 20 tasks jointly

One network for all 20 tasks of en-10k. Numbers are percent of questions answered wrongly, by the weights of a run's
last step; a task fails above 5%.
"""
WAY = f"""*validation* is the last evaluation while training, of a part of the validation stories, and *before* the one
at {RATHER_LATE:.0%} of the run's time: how fast the error was still falling. *test* and *failed* are of all test
questions. A run that ended "out of time" was stopped by its time limit before the steps that it was to make. Means ±
standard deviations where there are several seeds.
"""
COMPARED = """The columns of papers are means ± standard deviations over their networks: LSTM and DNC of Graves et al.
(2016, Extended Data Table 1), SDNC of Rae et al. (2016), ADNC and BiADNC of Franke et al. (2018), DNC-MD of Csordás &
Schmidhuber (2019). At most 1.0 is all that is known here of some tasks, and of others nothing (–).
"""
CHANGED = """### One change at a time

The recipe `babi-content` in fewer steps, its learning rate falling over the last 60% of these, and the same with one
setting changed: what each part of it is worth so early. What the recipe has is taken away, what it lacks is added.
*more* is the test error above that of the recipe unchanged, in points. From one seed each, small differences may be
chance.
"""
PAPERS = """
task   | LSTM       | DNC         | SDNC        | ADNC        | BiADNC     | DNC-MD
1      | 28.4 ± 1.5 | 9.0 ± 12.6  | 0.0         | 0.1         | 0.1        | 0.0
2      | 56.0 ± 1.5 | 39.2 ± 20.5 | 7.1 ± 14.6  | 0.8 ± 0.5   | 0.8 ± 0.2  | 6.9 ± 4.7
3      | 51.3 ± 1.4 | 39.6 ± 16.4 | 9.4 ± 16.7  | 6.5 ± 4.6   | 2.4 ± 0.6  | 12.4 ± 5.1
4      | 0.8 ± 0.5  | 0.4 ± 0.7   | 0.1 ± 0.1   | ≤ 1.0       | ≤ 1.0      | –
5      | 3.2 ± 0.5  | 1.5 ± 1.0   | 0.9 ± 0.3   | ≤ 1.0       | ≤ 1.0      | –
6      | 15.2 ± 1.5 | 6.9 ± 7.5   | 0.1 ± 0.2   | ≤ 1.0       | ≤ 1.0      | –
7      | 16.4 ± 1.4 | 9.8 ± 7.0   | 1.6 ± 0.9   | ≤ 1.0       | ≤ 1.0      | –
8      | 17.7 ± 1.2 | 5.5 ± 5.9   | 0.5 ± 0.4   | ≤ 1.0       | ≤ 1.0      | –
9      | 15.4 ± 1.5 | 7.7 ± 8.3   | 0.0 ± 0.1   | ≤ 1.0       | ≤ 1.0      | –
10     | 28.7 ± 1.7 | 9.6 ± 11.4  | 0.3 ± 0.2   | ≤ 1.0       | ≤ 1.0      | –
11     | 12.2 ± 3.5 | 3.3 ± 5.7   | 0.0         | ≤ 1.0       | ≤ 1.0      | –
12     | 5.4 ± 0.6  | 5.0 ± 6.3   | 0.2 ± 0.3   | ≤ 1.0       | ≤ 1.0      | –
13     | 7.2 ± 2.3  | 3.1 ± 3.6   | 0.1 ± 0.1   | ≤ 1.0       | ≤ 1.0      | –
14     | 55.9 ± 1.2 | 11.0 ± 7.5  | 5.6 ± 2.9   | 0.2 ± 0.1   | 0.8 ± 0.7  | 2.0 ± 1.6
15     | 47.0 ± 1.7 | 27.2 ± 20.1 | 3.6 ± 10.3  | 0.1 ± 0.1   | 0.1 ± 0.1  | 23.6 ± 18.6
16     | 53.3 ± 1.3 | 53.6 ± 1.9  | 53.0 ± 1.3  | 52.1 ± 0.9  | 52.6 ± 1.6 | 53.9 ± 1.2
17     | 34.8 ± 4.1 | 32.4 ± 8.0  | 12.4 ± 5.9  | 18.5 ± 8.8  | 4.8 ± 4.8  | 39.8 ± 1.2
18     | 5.0 ± 1.4  | 4.2 ± 1.8   | 1.6 ± 1.1   | 1.1 ± 0.5   | 0.4 ± 0.4  | 2.0 ± 2.6
19     | 90.9 ± 1.1 | 64.6 ± 37.4 | 30.8 ± 24.2 | 43.3 ± 36.7 | 0.0        | 40.7 ± 34.9
20     | 1.3 ± 0.4  | 0.0 ± 0.1   | 0.0         | ≤ 1.0       | ≤ 1.0      | –
mean   | 27.3 ± 0.8 | 16.7 ± 7.6  | 6.4 ± 2.5   | 6.3 ± 2.7   | 3.2 ± 0.5  | 9.5 ± 1.6
failed | 17.1 ± 1.0 | 11.2 ± 5.4  | 4.1 ± 1.6   | 3.2 ± 0.8   | 1.4 ± 0.5  | –
seeds  | 20         | 20          | 15          | 5           | 5          | –
"""
"""Mean error, %, over so many networks, each trained on all tasks."""


def is_joint(record: dict[str, Any]) -> bool:
    """Whether a record is of all 20 tasks at once."""
    task = record["recipe"]["task"]
    return task["kind"] == "babi" and set(task["tasks"]) == set(TASKS) and not task["train_files"]


def whole(records: Records) -> Records:
    """Those that are results in themselves."""
    return {name: record for name, record in records.items() if not name.startswith(SHORT)}


def describe(records: Records, figure: str) -> Iterator[str]:
    """The lines of a page on records that `is_joint` holds for, with a figure of the way there; none without any."""
    if not records:
        return
    records = dict(sorted(records.items()))
    yield HEAD
    yield from (f"{line}\n" for line in _notes(records))
    if found := whole(records):
        yield from (f"- {_origin(name, record)}" for name, record in found.items())
        yield f"\n{prose(WAY)}\n"
        yield f"{table(['run', *RUN], (row for name, record in found.items() for row in _runs(name, record)))}\n"
        yield figure
        yield f"{prose(COMPARED)}\n"
        yield f"{_errors(found)}\n"
    if changed := {name: record for name, record in records.items() if name.startswith(SHORT)}:
        yield CHANGED
        yield from (f"- {_origin(name, record)}" for name, record in changed.items())
        yield f"\n{_changes(changed)}\n"


def _notes(records: Records) -> Iterator[str]:
    """What is to be known of the data, once, and of which studies."""
    for note in dict.fromkeys(note for record in records.values() for note in record["notes"]):
        names = [name for name, record in records.items() if note in record["notes"]]
        yield prose(f"{note[:1].upper()}{note[1:]} So in {'all' if len(names) == len(records) else ', '.join(names)}.")


def _origin(name: str, record: dict[str, Any]) -> str:
    where = record["environment"]
    return prose(
        f"{name}: `{record['command']}`, commit {record['commit']}; {where['machine']}, "
        f"{where.get('processes', 1)} process(es) of {where['threads']} thread(s), torch {where['torch']}; "
        f"{', '.join(_settings(record['recipe']))}."
    )


def _settings(recipe: dict[str, Any]) -> Iterator[str]:
    """What of a recipe bears on the time that a run takes."""
    yield f"batches of {recipe['batch_size']} stories"
    if words := recipe["task"]["max_words"]:
        yield f"cut at {words} words"
    if steps := recipe["task"]["think_steps"]:
        yield f"{steps} steps to think before an answer"
    if share := recipe["optimizer"]["anneal_from"]:
        yield f"the learning rate falling to 0 over the last {1 - share:.0%} of the steps"


RUN = ("parameters", "seed", "ended", "steps", "hours", "before", "validation", "test", "failed")


def _runs(name: str, record: dict[str, Any]) -> Iterator[list[object]]:
    """A row for each seed."""
    for run in record["runs"]:
        yield [name, f"{record['parameters']:,}" if "parameters" in record else NONE, run["seed"], *_run(record, run)]


def _run(record: dict[str, Any], run: dict[str, Any]) -> list[object]:
    if run["status"] == "failed":
        return [run["status"], *[NONE] * (len(RUN) - 3)]
    planned, test = record["recipe"]["steps"], run["tests"]["test"]
    return [
        run["status"],
        f"{run['step']:,}" + ("" if run["step"] == planned else f" of {planned:,}"),
        f"{run['seconds'] / 3600:.2f}",
        _percent(before(run)),
        _percent(run["scores"].get("mean_error")),
        _percent(test["mean_error"]),
        f"{test['failed_tasks']:.0f}",
    ]


def before(run: dict[str, Any]) -> float | None:
    """The error of the last evaluation in the first part of a run's time; None if there was none, or no record."""
    errors = [error for _, seconds, error in run.get("validation", []) if seconds <= RATHER_LATE * run["seconds"]]
    return errors[-1] if errors else None


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def papers() -> dict[str, dict[str, str]]:
    """Row -> paper's model -> what `PAPERS` has there."""
    (_, *models), *rows = ([cell.strip() for cell in line.split("|")] for line in PAPERS.strip().splitlines())
    return {name: dict(zip(models, cells, strict=True)) for name, *cells in rows}


def _errors(records: Records) -> str:
    """The table of errors, a row for each task, ours before the papers'."""
    published = papers()
    tests = {name: _tests(record) for name, record in records.items()}
    scores = {str(task): (f"error/task {task}", 100) for task in TASKS}
    scores |= {"mean": ("mean_error", 100), "failed": ("failed_tasks", 1)}
    rows = [
        [row, *(_mean([factor * test[score] for test in tests[name]]) for name in records), *published[row].values()]
        for row, (score, factor) in scores.items()
    ]
    rows.append(["seeds", *(str(len(tests[name])) for name in records), *published["seeds"].values()])
    return table(["task", *records, *(f"{model}, paper" for model in published["1"])], rows)


def _tests(record: dict[str, Any]) -> list[dict[str, float]]:
    """The test scores of the seeds that did not fail."""
    return [run["tests"]["test"] for run in record["runs"] if run["status"] != "failed"]


def _mean(values: list[float]) -> str:
    if not values:
        return NONE
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.1f} ± {deviation:.1f}" if len(values) > 1 else f"{mean:.1f}"


def _changes(records: Records) -> str:
    """The table of one change each, with what it made worse."""
    base = records.get(SHORT)
    rows = []
    for name, record in records.items():
        apart = differences(base["recipe"], record["recipe"]) if base else []
        for row in _runs(name, record):
            rows.append([", ".join(apart) or (NONE if base is None else "none"), *row, _worse(record, base)])
    return table(["change", "run", *RUN, "more"], rows)


def _worse(record: dict[str, Any], base: dict[str, Any] | None) -> str:
    """By how many points a study's mean test error is above another's."""
    ours, theirs = _tests(record), _tests(base) if base else []
    if record is base or not ours or not theirs:
        return NONE
    mine, other = (mean_and_deviation([test["mean_error"] for test in tests])[0] for tests in (ours, theirs))
    return f"{100 * (mine - other):+.1f}"


def differences(base: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings of a recipe that another has otherwise, with the other's values."""
    found = []
    for name in base | other:
        ours, theirs = base.get(name), other.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += differences(ours, theirs)
        elif ours != theirs:
            found.append(f"{name} {_told(theirs)}")
    return found


def _told(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
