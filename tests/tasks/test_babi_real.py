"""The real bAbI data: what is known of it, and counts made on the raw text."""

import re

import pytest
import torch

from torchdnc.tasks import BAbI
from torchdnc.tasks.babi.sources import sections
from torchdnc.tasks.data import babi_manifest, babi_status

QA3 = "en-10k/qa3_three-supporting-facts_train.txt"


def raw_stories(path):
    """The stories of a file as text, without the numbers of supporting lines."""
    text = re.sub(r"\t[\d ]+$", "", path.read_text("ascii").lower(), flags=re.MULTILINE)
    return [f"1 {story.strip()}" for story in re.split(r"^1 ", text, flags=re.MULTILINE)[1:]]


def raw_words(story):
    """Steps that a story takes: words, full stops and question marks, and a step per answer word."""
    return len(re.findall(r"[a-z]+|[.?]", story))


def raw_questions(stories):
    return sum(story.count("\t") for story in stories)


@pytest.fixture(scope="module")
def task(babi_data):
    return BAbI(data_dir=babi_data).resolved()


def test_no_file_is_altered_and_at_most_the_known_one_is_absent(babi_data):
    status = babi_status(babi_data)
    assert not status.altered
    assert set(status.absent) <= {QA3}
    assert len(status.present) + len(status.absent) == len(babi_manifest()) == 100


def test_vocabulary_has_the_159_words_of_the_paper(task):
    assert len(task.vocabulary) == 159
    assert set("nsew.?-") < set(task.vocabulary)
    assert task.spec == (159, 159)


def test_vocabulary_of_one_task_is_its_own(babi_data):
    words = BAbI(tasks=(1,), data_dir=babi_data).resolved().vocabulary
    others = {"moved", "journeyed", "travelled", "went", "back", "to", "the", "where", "is", ".", "?", "-"}
    people, places = 4, 6
    assert len(words) == people + places + len(others)
    assert others < set(words)


def test_test_split_has_1000_questions_of_each_task(task):
    parts = sections(task.source, "test")
    assert [part.group for part in parts] == list(range(1, 21))
    for part in parts:
        expected = raw_stories(part.path)
        assert [len(story.words) for story in part.stories] == [raw_words(story) for story in expected]
        assert raw_questions(expected) == sum(story.words.count("?") for story in part.stories) == 1000


def test_longest_test_story_has_1388_words_and_5_answers(task):
    batches = list(task.evaluation("test", batch_size=64, sequences=None, seed=0))
    longest = max(batches, key=lambda batch: len(batch.mask))
    assert len(longest.mask) == 1388 + 5
    row = int(longest.lengths.argmax())
    assert (int(longest.groups[row]), int(longest.mask[:, row].sum())) == (3, 5)
    assert sum(len(batch.lengths) for batch in batches) == sum(
        len(raw_stories(part.path)) for part in sections(task.source, "test")
    )


def test_training_stories_are_those_not_held_out_for_validation(task):
    pairs = zip(sections(task.source, "train"), sections(task.source, "valid"), strict=True)
    for train, valid in pairs:
        held_out = raw_stories(valid.path)
        left = [story for story in raw_stories(train.path) if story not in set(held_out)]
        assert [len(story.words) for story in train.stories] == [raw_words(story) for story in left]
        assert len(valid.stories) == len(held_out)
        assert raw_questions(held_out) == pytest.approx(1000, abs=5)


def test_training_files_without_task_3_hold_what_is_known_of_them(task):
    """60,661 stories, 4.75 million steps."""
    files = [part.path for part in sections(task.source, "train") if part.group != 3]
    stories = [story for file in files for story in raw_stories(file)]
    assert len(stories) == 60_661
    assert sum(map(raw_words, stories)) == pytest.approx(4.75e6, rel=1e-3)


def test_task_3_trains_on_what_there_is_and_says_so(task, babi_data):
    stories = sections(task.source, "train")[2].stories
    if (babi_data / QA3).is_file():
        assert task.notes() == ()
        assert len(stories) == 1800
    else:
        assert task.notes()[0].startswith("task 3 trains on 185 stories of the incomplete copy")
        assert len(stories) == 385 - 200


def test_answers_of_several_words_take_a_step_each(babi_data):
    task = BAbI(tasks=(19,), data_dir=babi_data).resolved()
    batch = next(task.evaluation("test", batch_size=1, sequences=1, seed=0))
    answers = [task.vocabulary[i] for i in batch.targets[batch.mask]]
    assert raw_stories(sections(task.source, "test")[0].path)[0].endswith("\t" + ",".join(answers))
    assert torch.equal(batch.mask[:, 0].nonzero()[:, 0], batch.lengths - torch.tensor([2, 1]))
