"""The bAbI task on a few handmade stories."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import assert_close
from torchdnc.tasks import BAbI
from torchdnc.tasks.babi.sources import sections
from torchdnc.tasks.babi.task import wrong_questions
from torchdnc.tasks.babi.text import typed
from torchdnc.tasks.data import BABI

PLACES = ("kitchen", "garden", "office")
NAMES = ("mary", "john", "daniel")
WORDS = 17
"""In the vocabulary of `own`."""


def story(name: str, place: str, moves: int = 1) -> str:
    lines = [f"{i + 1} {name.title()} went to the {PLACES[i % 3]}." for i in range(moves - 1)]
    lines.append(f"{moves} {name.title()} went to the {place}.")
    return "\n".join([*lines, f"{moves + 1} Where is {name.title()}?\t{place}\t{moves}", ""])


def stories(count: int, moves: int = 1) -> list[str]:
    """Different stories, as long as `moves` grows."""
    return [story(NAMES[i % 3], PLACES[i // 3 % 3], moves + i // 9) for i in range(count)]


@pytest.fixture
def official(tmp_path):
    """A data folder with small files in place of tasks 1 and 3."""
    for task, count in ((1, 30), (3, 20)):
        text = stories(count, moves=task)
        held_out = text[2:5]
        for folder, name, content in (
            ("en", "train", text[:20]),
            ("en", "test", stories(4, moves=5)),
            ("en-10k", "train", text),
            ("en-10k", "test", stories(4, moves=5)),
        ):
            file = tmp_path / "babi" / BABI / folder / f"qa{task}_small_{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(content))
        valid = tmp_path / "babi" / BABI / "en-valid-10k" / f"qa{task}_valid.txt"
        valid.parent.mkdir(exist_ok=True)
        valid.write_text("".join(held_out))
    return tmp_path


@pytest.fixture
def own(tmp_path):
    """Text of a user's own."""
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("".join(stories(40)))
    test.write_text("1 Mary got the milk.\n2 What is where?\tmilk,kitchen\n3 Where is Mary?\tgarden\n")
    return BAbI(train_files=(train,), test_files=(test,))


def words_of(task, batch, row):
    length = int(batch.lengths[row])
    return [task.vocabulary[i] for i in batch.inputs[:length, row].argmax(-1)]


def told(task, batches):
    """What the rows of some batches say, answers included."""
    texts = []
    for batch in batches:
        for row in range(len(batch.lengths)):
            answers = [task.vocabulary[i] for i in batch.targets[:, row][batch.mask[:, row]]]
            texts.append(" ".join(words_of(task, batch, row) + answers))
    return texts


def as_told(text):
    """The same of a story's text."""
    said, answers = [], []
    for line in text.splitlines():
        sentence, _, behind = line.partition(" ")[2].partition("\t")
        said += sentence.lower().replace(".", " .").replace("?", " ?").split()
        if behind:
            answers += behind.split("\t")[0].split(",")
            said += ["-"] * len(behind.split("\t")[0].split(","))
    return " ".join(said + answers)


def whole(task, split):
    return list(task.evaluation(split, batch_size=3, sequences=None, seed=0))


def test_encoding_is_that_of_the_docstring(tmp_path):
    file = tmp_path / "story.txt"
    file.write_text(story("mary", "kitchen"))
    task = BAbI(train_files=(file,), valid_files=(file,), test_files=(file,)).resolved()
    batch = task.sample(1, seed=0, step=0)
    lines = [line.split() for line in (BAbI.__doc__ or "").splitlines()]
    assert ["input", *words_of(task, batch, 0)] in lines
    assert ["target", task.vocabulary[batch.targets[10, 0]]] in lines
    assert batch.mask[:, 0].tolist() == [False] * 10 + [True]
    assert (batch.inputs.sum(-1) == 1).all()


def test_vocabulary_is_every_word_of_every_split_and_the_dash(own):
    expected = {".", "?", "-", "the", "went", "to", "where", "is", "got", "milk", "what", *PLACES, *NAMES}
    assert own.resolved().vocabulary == tuple(sorted(expected))
    assert own.spec == (len(expected), len(expected))
    assert len(expected) == WORDS
    assert own.vocabulary == ()


def test_word_outside_the_vocabulary_is_named_with_file_and_line(own):
    words = tuple(word for word in own.resolved().vocabulary if word != "milk")
    with pytest.raises(ValueError, match=r'test\.txt, line 1: "milk" is not one of the 16 words of the vocab'):
        replace(own, vocabulary=words).evaluation("test", batch_size=1, sequences=None, seed=0)


def test_own_text_holds_out_every_tenth_story(own):
    task, text = own.resolved(), [as_told(text) for text in stories(40)]
    assert told(task, whole(task, "valid")) == text[9::10]
    train = told(task, [task.sample(7, seed=0, step=step) for step in range(6)])
    assert sorted(train) == sorted(set(text) - set(text[9::10]))
    assert not whole(task, "test")[0].groups.any()


def test_own_validation_text_leaves_the_training_text_whole(own):
    task = replace(own, valid_files=own.test_files).resolved()
    assert len(told(task, [task.sample(40, seed=0, step=0)])) == 40
    assert len(told(task, whole(task, "valid"))) == 1


def test_training_text_without_test_text_cannot_be_tested(own):
    task = replace(own, test_files=()).resolved()
    with pytest.raises(ValueError, match="test_files must be given to test on text like that of train_files"):
        whole(task, "test")


def test_too_little_own_text_has_no_validation_split(own, tmp_path):
    (tmp_path / "short.txt").write_text("".join(stories(9)))
    task = replace(own, train_files=(tmp_path / "short.txt",))
    with pytest.raises(ValueError, match="the valid split must have stories, got none; give more text or valid_"):
        whole(task, "valid")


def test_published_validation_stories_are_taken_from_training_by_content(official):
    task = BAbI(tasks=(1,), data_dir=official).resolved()
    text = [as_told(text) for text in stories(30)]
    assert told(task, whole(task, "valid")) == text[2:5]
    train = told(task, [task.sample(30, seed=0, step=0)])
    assert sorted(train) == sorted(text[:2] + text[5:])


def test_small_edition_holds_out_every_tenth_story(official):
    task = BAbI(tasks=(1,), edition="en", data_dir=official).resolved()
    text = [as_told(text) for text in stories(20)]
    assert told(task, whole(task, "valid")) == [text[9], text[19]]
    assert len(told(task, [task.sample(30, seed=0, step=0)])) == 18


def test_several_tasks_are_learnt_jointly_and_evaluated_in_order(official):
    task = BAbI(tasks=(3, 1), data_dir=official).resolved()
    batch = task.sample(99, seed=0, step=0)
    assert batch.groups.bincount().tolist() == [0, 27, 0, 17]
    assert [group for batch in whole(task, "test") for group in batch.groups.tolist()] == [3] * 4 + [1] * 4
    some = task.evaluation("test", batch_size=3, sequences=4, seed=0)
    assert [group for batch in some for group in batch.groups.tolist()] == [3, 3, 1, 1]


def test_every_story_is_seen_once_an_epoch(official):
    task = BAbI(tasks=(1, 3), data_dir=official).resolved()
    steps = math.ceil(44 / 5)
    epochs = [[task.sample(5, seed=0, step=epoch * steps + i) for i in range(steps)] for epoch in (0, 1)]
    first, second = (told(task, epoch) for epoch in epochs)
    assert {len(batch.lengths) for batch in epochs[0]} == {4, 5}
    assert len(first) == 44
    assert first != second
    assert sorted(first) == sorted(second)
    assert told(task, [task.sample(5, seed=0, step=steps + 2)]) == told(task, [epochs[1][2]])
    assert told(task, [task.sample(5, seed=1, step=0)]) != told(task, [epochs[0][0]])


def test_stories_of_a_batch_are_of_about_one_length(official):
    task = BAbI(tasks=(1, 3), data_dir=official).resolved()
    batches = [task.sample(4, seed=0, step=step) for step in range(11)]
    spread = [int(batch.lengths.max() - batch.lengths.min()) for batch in batches]
    total = max(int(batch.lengths.max()) for batch in batches) - min(int(b.lengths.min()) for b in batches)
    assert sum(spread) / len(spread) < total / 3


def test_long_training_stories_are_cut_and_test_stories_are_not(tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("1 A went.\n2 Where is A?\tthere\n3 B went.\n4 Where is B?\there\n")
    task = BAbI(train_files=(file,), valid_files=(file,), test_files=(file,), max_words=12).resolved()
    assert task.sample(1, seed=0, step=0).lengths.tolist() == [8]
    assert whole(task, "test")[0].lengths.tolist() == [16]


def test_batch_is_zero_past_the_lengths(official):
    task = BAbI(tasks=(1, 3), data_dir=official).resolved()
    batch = task.sample(44, seed=0, step=0)
    assert len(set(batch.lengths.tolist())) > 1
    for row, length in enumerate(batch.lengths.tolist()):
        assert not any(tensor[length:, row].any() for tensor in batch[:3])
    assert [tensor.dtype for tensor in batch] == [
        torch.float32, torch.int64, torch.bool, torch.int64, torch.int64
    ]  # fmt: skip


def test_think_steps_are_empty_and_stand_before_every_answer(own):
    plain, thoughtful = (next(task.evaluation("test", batch_size=1)) for task in (own, replace(own, think_steps=2)))
    asked = plain.mask[:, 0].tolist()
    expected = []
    for t, word in enumerate(plain.inputs[:, 0]):
        if asked[t] and not asked[t - 1]:
            expected += 2 * [torch.zeros_like(word)]
        expected.append(word)
    assert asked.count(True) == 3
    assert len(expected) == len(asked) + 4
    assert torch.equal(thoughtful.inputs[:, 0], torch.stack(expected))
    assert torch.equal(thoughtful.targets[thoughtful.mask], plain.targets[plain.mask])
    assert thoughtful.lengths.tolist() == [len(expected)]
    assert "what is where ? _ _ -> milk kitchen" in replace(own, think_steps=2).render(thoughtful)


def test_think_steps_of_several_stories(official):
    plain = BAbI((1, 3), data_dir=official)
    thoughtful = replace(plain, think_steps=3)
    before, after = (next(task.evaluation("test", batch_size=8)) for task in (plain, thoughtful))
    assert (after.lengths - before.lengths).tolist() == [3] * 8
    at = after.inputs.any(-1)
    for row, length in enumerate(after.lengths):
        assert torch.equal(after.inputs[:length, row][at[:length, row]], before.inputs[: before.lengths[row], row])
    batch = thoughtful.sample(4, seed=0, step=0)
    assert (~batch.inputs.any(-1)).sum(0).tolist() == [3 + len(batch.inputs) - length for length in batch.lengths]


def test_lines_of_a_story_are_encoded_as_the_story_is(own):
    task = replace(own, think_steps=2).resolved()
    lines = ["1 Mary got the milk.", "2 What is where?\tmilk,kitchen", "3 Where is Mary?\tgarden"]
    inputs, places = task.encode([typed(line, 1)[1] for line in lines])
    assert torch.equal(inputs, next(task.evaluation("test", batch_size=1)).inputs[:, 0])
    assert places.tolist() == 5 * [0] + 8 * [1] + 7 * [2]


def test_loss_is_the_mean_cross_entropy_of_the_answer_words(own):
    batch = whole(own.resolved(), "test")[0]
    outputs = torch.randn(*batch.mask.shape, WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nats = [
        math.log(sum(math.exp(z) for z in outputs[t, 0].tolist())) - outputs[t, 0, batch.targets[t, 0]].item()
        for t in range(len(outputs))
        if batch.mask[t, 0]
    ]
    assert len(nats) == 3
    outputs[~batch.mask] = math.nan
    outputs.requires_grad_()
    loss = own.loss(outputs, batch)
    assert_close(loss.detach(), torch.tensor(sum(nats) / 3, dtype=torch.float64))
    assert not torch.autograd.grad(loss, outputs)[0][~batch.mask].any()


@pytest.mark.parametrize(
    ("wrong_words", "wrong_questions"), [((), 0), ((0,), 1), ((1,), 1), ((0, 1), 1), ((2,), 1), ((1, 2), 2)]
)
def test_question_is_right_only_if_all_its_words_are(own, wrong_words, wrong_questions):
    batch = whole(own.resolved(), "test")[0]
    outputs = F.one_hot(batch.targets, WORDS).float()
    steps = batch.mask[:, 0].nonzero()[:, 0]
    for word in wrong_words:
        outputs[steps[word]] *= -1
    assert own.score(outputs, batch) == {"error/own text": (wrong_questions, 2)}


def test_nan_is_a_wrong_answer(own):
    batch = whole(own.resolved(), "test")[0]
    outputs = F.one_hot(batch.targets, WORDS).float()
    outputs[outputs == 1] = math.nan
    assert own.score(outputs, batch) == {"error/own text": (2, 2)}


def test_a_run_of_answer_words_is_one_question_and_ends_with_its_row():
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 0, 0]], dtype=torch.bool).T
    right = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1]], dtype=torch.bool).T
    wrong, row = wrong_questions(right, mask)
    assert wrong.tolist() == [False, True, False, True, False]
    assert row.tolist() == [0, 0, 0, 1, 1]


def test_score_tells_tasks_apart(official):
    task = BAbI(tasks=(1, 3), data_dir=official).resolved()
    batch = next(task.evaluation("test", batch_size=8, sequences=None, seed=0))
    outputs = F.one_hot(batch.targets, task.spec.output_size).float()
    outputs[:, [0, 2, 5]] *= -1
    assert task.score(outputs, batch) == {"error/task 1": (2, 4), "error/task 3": (1, 4)}


def test_summary_has_the_mean_over_tasks_and_the_failed_ones():
    totals = {"error/task 1": (5.0, 100.0), "error/task 2": (51.0, 1000.0), "error/task 3": (1.0, 2.0)}
    summary = BAbI().summary(totals)
    assert [summary[name] for name in totals] == [0.05, 0.051, 0.5]
    assert summary["mean_error"] == pytest.approx((0.05 + 0.051 + 0.5) / 3)
    assert summary["failed_tasks"] == 2


def test_picture_shows_sentences_answers_and_what_the_model_said(own):
    task = own.resolved()
    batch = whole(task, "test")[0]
    outputs = F.one_hot(batch.targets, WORDS).float()
    steps = batch.mask[:, 0].nonzero()[:, 0]
    outputs[steps[1], 0] = F.one_hot(torch.tensor(task.vocabulary.index("office")), WORDS).float()
    assert task.render(batch).splitlines() == [
        "own text, 16 words",
        "mary got the milk .",
        "what is where ? -> milk kitchen",
        "where is mary ? -> garden",
    ]
    assert task.render(batch, outputs).splitlines()[2:] == [
        "what is where ? -> milk kitchen, model: milk office  x",
        "where is mary ? -> garden, model: garden",
    ]


def test_incomplete_training_file_of_task_3_stands_in_and_a_note_says_so(official):
    (official / "babi" / BABI / "en-10k" / "qa3_small_train.txt").unlink()
    task = BAbI(tasks=(1, 3), data_dir=official)
    with pytest.raises(FileNotFoundError, match=r"there is no qa3_\*_train\.txt .*`torchdnc data babi`"):
        task.resolved()
    partial = official / "babi" / "en-10k-partial" / "qa3_three-supporting-facts_train.partial.txt"
    partial.parent.mkdir()
    partial.write_text("".join(stories(10, moves=3)))
    (note,) = task.notes()
    assert note.startswith(f"task 3 trains on 7 stories of the incomplete copy {partial}, since")
    batch = task.sample(99, seed=0, step=0)
    assert batch.groups.bincount().tolist() == [0, 27, 0, 7]
    assert BAbI(tasks=(1,), data_dir=official).notes() == ()
    assert BAbI(edition="en", data_dir=official).notes() == ()


def test_generated_stories_of_task_3_stand_in_where_that_is_asked_for(official):
    file = official / "babi" / BABI / "en-10k" / "qa3_small_train.txt"
    full = BAbI(tasks=(3,), data_dir=official, task3="generated")
    assert full.notes() == ()
    assert full.sample(99, seed=0, step=0).groups.bincount().tolist() == [0, 0, 0, 17]
    file.unlink()
    task = BAbI(tasks=(1, 3), data_dir=official, task3="generated")
    assert [len(part.stories) for part in sections(task.source, "valid")] == [3, 3]
    assert [len(part.stories) for part in sections(task.source, "train")] == [27, 2000]
    assert "task 3 trains on 2,000 stories generated by its rules (seed 3), since" in task.notes()[0]
    assert BAbI(edition="en", data_dir=official, task3="generated").notes() == ()
    with pytest.raises(ValueError, match=r"the generated stories of task 3, line \d+: \"milk\" is not one of"):
        replace(task, vocabulary=tuple(set(task.resolved().vocabulary) - {"milk"})).sample(1, seed=0, step=0)


def test_both_stand_ins_of_task_3_train_and_validate_once(official):
    (official / "babi" / BABI / "en-10k" / "qa3_small_train.txt").unlink()
    task = BAbI(tasks=(1, 3), data_dir=official, task3="both")
    with pytest.raises(FileNotFoundError, match=r"there is no qa3_\*_train\.txt"):
        task.resolved()
    partial = official / "babi" / "en-10k-partial" / "qa3_three-supporting-facts_train.partial.txt"
    partial.parent.mkdir()
    partial.write_text("".join(stories(10, moves=3)))
    assert [len(part.stories) for part in sections(task.source, "train")] == [27, 7, 2000]
    assert [len(part.stories) for part in sections(task.source, "valid")] == [3, 3]
    (note,) = task.notes()
    assert note.startswith(
        f"task 3 trains on 7 stories of the incomplete copy {partial} and 2,000 stories generated by"
    )


def test_length_of_stories_cannot_be_set():
    with pytest.raises(ValueError, match="the stories of babi have the lengths they have: none can be set, got 5"):
        BAbI().with_length(5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": (0,)}, r"tasks must be different numbers from 1 to 20, got \(0,\)"),
        ({"tasks": (1, 1)}, r"tasks must be different numbers from 1 to 20, got \(1, 1\)"),
        ({"tasks": ()}, r"tasks must be different numbers from 1 to 20, got \(\)"),
        ({"tasks": [1, 2]}, r"tasks must be a tuple, got \[1, 2\]"),
        ({"edition": "hn"}, "edition must be one of 'en', 'en-10k', got 'hn'"),
        ({"task3": "made up"}, "task3 must be one of 'partial', 'generated', 'both', got 'made up'"),
        ({"max_words": -1}, "max_words must be at least 0, got -1"),
        ({"vocabulary": ("a", "b")}, 'vocabulary must be different words and "-", got'),
        ({"vocabulary": ("-", "b", "b")}, 'vocabulary must be different words and "-", got'),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAbI(**settings)
