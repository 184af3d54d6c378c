"""The generated stories of task 3, against a reader who knows its rules and against what is known of the real ones."""

import hashlib
import re
from collections import Counter
from math import sqrt

import numpy as np
import pytest

from torchdnc.tasks import BAbI
from torchdnc.tasks.babi import task3
from torchdnc.tasks.babi.sources import GENERATED, PARTIAL, sections
from torchdnc.tasks.babi.text import parse_stories, read_stories

MOVES = ("moved", "journeyed", "travelled", "went")
GETS = ("got", "grabbed", "took", "picked")
KNOWN_STORIES, KNOWN_QUESTIONS = 385, 1925
"""Genuine training stories that there are, and their questions."""


def tellings(text):
    """The stories of a text, each a list of its lines without their numbers."""
    return [
        re.findall(r"^\d+ (.*)$", part, re.MULTILINE) for part in re.split(r"^(?=1 )", text, flags=re.MULTILINE)[1:]
    ]


def kind_of(statement):
    verb = statement.split()[1]
    return "move" if verb in MOVES else "get" if verb in GETS else "drop"


def answered(story):
    """What a reader answers who knows where things are: (his answer, the one of the text) for every question."""
    where, holder, pairs = {}, {}, []
    been: dict[str, list[str | None]] = {}
    for line in story:
        question, *behind = line.lower().split("\t")
        words = re.findall(r"\w+", question)
        if behind:
            thing, place = words[3], words[6]
            latest = max(i for i, visited in enumerate(been[thing]) if visited == place)
            pairs.append((been[thing][latest - 1], behind[0]))
            continue
        person, what = words[0], [word for word in words if word != "there"][-1]
        if kind_of(question) == "move":
            where[person] = what
        elif kind_of(question) == "get":
            holder[what] = person
        else:
            assert holder.pop(what) == person
        for thing, carrier in holder.items():
            if carrier in where and been.setdefault(thing, [None])[-1] != where[carrier]:
                been[thing].append(where[carrier])
    return pairs


def supported(story):
    """Whether the lines that each question names are what it takes: the last get or drop, and the two moves before."""
    for at, line in enumerate(story):
        if "\t" in line:
            thing, place = re.findall(r"\w+", line)[3:7:3]
            answer, numbers = line.split("\t")[1:]
            handled, move, before = (story[int(number) - 1] for number in numbers.split())
            told = [earlier for earlier in story[:at] if "?" not in earlier and f" the {thing}" in earlier]
            assert handled == told[-1]
            assert move.endswith(f" the {place}.")
            assert before.endswith(f" the {answer}.")
            assert len({handled.split()[0], move.split()[0], before.split()[0]}) == 1
    return True


@pytest.fixture(scope="module")
def stories():
    return tellings(task3.generated())


@pytest.fixture(scope="module")
def genuine(babi_data):
    """Every text of genuine stories that there is, by what it is for."""
    texts = {"train": babi_data.parent / PARTIAL, "test": next(babi_data.glob("en-10k/qa3_*_test.txt"))}
    if not texts["train"].is_file():
        texts["train"] = next(babi_data.glob("en-10k/qa3_*_train.txt"))
    return {name: path.read_text("ascii") for name, path in texts.items()}


def test_reader_is_right_on_every_generated_question(stories):
    assert len(stories) == 2_000
    assert all(sum("\t" in line for line in story) == 5 for story in stories)
    pairs = [pair for story in stories for pair in answered(story)]
    assert len(pairs) == 10_000
    assert all(given == right for given, right in pairs)
    assert all(map(supported, stories))


def test_reader_is_right_on_every_genuine_question(genuine):
    for name, text in genuine.items():
        pairs = [pair for story in tellings(text) for pair in answered(story)]
        assert len(pairs) >= {"train": KNOWN_QUESTIONS, "test": 1000}[name]
        assert all(given == right for given, right in pairs)
        assert all(map(supported, tellings(text)))


def test_a_wrong_answer_is_told(stories):
    """A move that is left out, the one that brought the object to the answer, makes the reader wrong."""
    question = next(at for at, line in enumerate(stories[0]) if "\t" in line)
    before = int(stories[0][question].split()[-1])
    told = ["John went to the office.", *stories[0][: before - 1], *stories[0][before : question + 1]]
    (given, right), *_ = answered(told)
    assert given != right


def counts(stories):
    """[stories, 4]: moves, gets, drops and questions of each story."""
    told = [[kind_of(line) if "\t" not in line else "question" for line in story] for story in stories]
    return np.array([[kinds.count(kind) for kind in ("move", "get", "drop", "question")] for kinds in told])


def deviations(stories, known, known_stories=KNOWN_STORIES):
    """How many standard errors of the difference lie between what is known of the genuine stories and these.

    Stories are independent and their statements are not, so errors are those of ratios of sums over stories; the known
    figures come from `known_stories` of them and have an error of their own.
    """
    n = counts(stories)
    statements = n[:, :3].sum(1)
    parts = {"move": (n[:, 0], statements), "get": (n[:, 1], statements), "drop": (n[:, 2], statements)}
    parts["statements per question"] = (statements, n[:, 3])
    found = {}
    for name, (numerator, denominator) in parts.items():
        ratio = numerator.sum() / denominator.sum()
        error = (numerator - ratio * denominator).std() / denominator.mean()
        found[name] = abs(ratio - known[name]) / (error * sqrt(1 / len(stories) + 1 / known_stories))
    return found


GENUINE = {"move": 0.633, "get": 0.190, "drop": 0.177, "statements per question": 14.79}


def test_frequencies_are_those_of_the_genuine_stories(stories):
    """Within four standard errors: 1.7 points of moves, 0.9 of gets and of drops, 1.7 statements."""
    assert max(deviations(stories, GENUINE).values()) < 4


@pytest.mark.parametrize(
    ("name", "wrong"), [("move", 0.65), ("get", 0.2), ("drop", 0.165), ("statements per question", 17)]
)
def test_other_frequencies_are_told(stories, name, wrong):
    assert max(deviations(stories, GENUINE | {name: wrong}).values()) > 4


def test_known_frequencies_are_those_of_the_genuine_text(genuine):
    stories = tellings(genuine["train"])
    n = counts(stories)
    if len(stories) == KNOWN_STORIES:
        shares = n.sum(0)[:3] / n[:, :3].sum()
        assert shares.round(3).tolist() == [GENUINE[kind] for kind in ("move", "get", "drop")]
        assert n[:, :3].sum() / n[:, 3].sum() == pytest.approx(14.79, abs=0.005)


def test_verbs_are_uniform_within_their_class_and_a_fifth_ends_in_there(stories):
    lines = [line for story in stories for line in story if "\t" not in line]
    phrases = Counter(re.sub(r"^\w+ (.+) the \w+( there)?\.$", r"\1", line) for line in lines)
    for verbs in (task3.MOVE, task3.GET, task3.DROP):
        total, share = sum(phrases[verb] for verb in verbs), 1 / len(verbs)
        for verb in verbs:
            assert abs(phrases[verb] - share * total) < 4 * sqrt(total * share * (1 - share))
    assert set(phrases) == {*task3.MOVE, *task3.GET, *task3.DROP}
    handled = [line for line in lines if kind_of(line) != "move"]
    there = sum(line.endswith(" there.") for line in handled)
    assert abs(there - len(handled) / 5) < 4 * sqrt(len(handled) * 0.16)


def test_questions_are_asked_behind_pairs_of_statements(stories):
    """In the genuine text too; and right behind the first pair in 43% of all cases there."""
    gaps = [
        len(gap) for story in stories for gap in re.split("q", "".join("q" if "\t" in line else "." for line in story))
    ]
    assert not any(gap % 2 for gap in gaps)
    assert sum(gap == 2 for gap in gaps) / 10_000 == pytest.approx(835 / KNOWN_QUESTIONS, abs=0.05)


def test_vocabulary_is_that_of_the_genuine_stories(genuine):
    words = [set(re.findall(r"[a-z]+|[?.]", text.lower())) for text in (task3.generated(), *genuine.values())]
    assert words[0] == words[1] == words[2]


def test_the_reader_of_genuine_files_reads_them(tmp_path, stories):
    file = tmp_path / "generated.txt"
    file.write_text(task3.generated(20))
    assert read_stories(file) == parse_stories(task3.generated(), GENERATED)[:20]
    for read, told in zip(read_stories(file), stories[:20], strict=True):
        lines = [re.sub(r"\t.*", "-", line.lower()) for line in told]
        assert list(read.words) == re.findall(r"\w+|[.?-]", " ".join(lines))
        assert list(read.answers) == [line.split("\t")[1] for line in told if "\t" in line]


def test_the_text_is_the_same_everywhere():
    digest = hashlib.sha256(task3.generated().encode()).hexdigest()
    assert digest == "b9186579dd8e34b95522e27677d551d746346ad0798e50f5c5ab6931c29dcf96"
    assert task3.generated(3, seed=4) != task3.generated(3)


def test_generated_stories_train_and_the_published_ones_validate(babi_data):
    task = BAbI(tasks=(3,), data_dir=babi_data, task3="generated")
    if next(babi_data.glob("en-10k/qa3_*_train.txt"), None):
        assert task.notes() == ()
        assert sections(task.source, "train") == sections(BAbI(tasks=(3,), data_dir=babi_data).source, "train")
        pytest.skip("the full training file is there: nothing stands in for it")
    (note,) = task.notes()
    assert note.startswith(
        "task 3 trains on 2,000 stories generated by its rules (seed 3), since its full training file"
    )
    (train,), (valid,), (test,) = (sections(task.source, split) for split in ("train", "valid", "test"))
    partial = BAbI(tasks=(3,), data_dir=babi_data)
    assert (valid, test) == (*sections(partial.source, "valid"), *sections(partial.source, "test"))
    assert len(valid.stories) == 200
    assert not set(train.stories) & {*valid.stories, *test.stories}
    assert task.resolved().vocabulary == partial.resolved().vocabulary
