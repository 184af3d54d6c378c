"""Reading text in the bAbI format."""

import pytest

from torchdnc.tasks.babi.corpus import shortened
from torchdnc.tasks.babi.text import Sentence, Story, line_of, read_stories, typed

TEXT = """\
1 Mary got the milk there.
2 What is Mary carrying? \tmilk,apple\t1
3 Where is Mary?\tKitchen

1 The garden is west of the bathroom.
2 How do you go?\ts, w\t1 2
"""
FIRST_WORDS = "mary got the milk there . what is mary carrying ? - - where is mary ? -"
SECOND_WORDS = "the garden is west of the bathroom . how do you go ? - -"
FIRST = Story(tuple(FIRST_WORDS.split()), ("milk", "apple", "kitchen"))
SECOND = Story(tuple(SECOND_WORDS.split()), ("s", "w"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "stories.txt"


def test_a_story_is_one_word_per_step_with_a_dash_per_answer_word(file):
    file.write_text(TEXT)
    assert read_stories(file) == (FIRST, SECOND)


def test_windows_line_ends_mean_nothing(file):
    file.write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert read_stories(file) == (FIRST, SECOND)


def test_line_of_a_word(file):
    file.write_text(TEXT)
    assert [line_of(word, TEXT, file) for word in ("mary", "kitchen", "west", "w")] == [1, 3, 5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Mary went.\n",
            'line 1: a line must begin with its number in the story and a blank, got "Mary went."',
        ),
        ("1 A b.\n3 C?\td\n", "line 2: the number must be 1 or follow the number before, 1, got 3"),
        ("2 A b?\tc\n", "line 1: the number must be 1 or follow the number before, 0, got 2"),
        ("1 A b?\tc\t1\t2\n", "line 1: a line must have at most two tabs"),
        ("1 A b.\n2 \tc\n", 'line 2: a sentence must have words, none of them "-", got ""'),
        ("1 A - b?\tc\n", 'line 1: a sentence must have words, none of them "-", got "A - b?"'),
        ("1 A b?\t\t1\n", 'line 1: an answer must have words, none of them "-", got ""'),
        ("1 A b?\tc\n1 D e.\n2 F.\n1 G?\th\n", "line 2: the story that begins here has no question"),
        ("\n", " holds no story"),
    ],
)
def test_malformed_text_is_refused_with_file_and_line(file, text, message):
    file.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_stories(file)
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_text_must_be_utf_8(file):
    file.write_bytes(b"1 caf\xe9?\tno\n")
    with pytest.raises(ValueError, match=r"stories\.txt must be text in UTF-8"):
        read_stories(file)


def test_absent_file_is_named(file):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*stories\.txt"):
        read_stories(file)


@pytest.mark.parametrize(
    ("max_words", "words", "answers"),
    [(0, 18, 3), (18, 18, 3), (17, 13, 2), (13, 13, 2), (12, 13, 2), (1, 13, 2)],
)
def test_long_story_is_cut_behind_its_last_question_that_fits_or_its_first(max_words, words, answers):
    assert shortened(FIRST, max_words) == Story(FIRST.words[:words], FIRST.answers[:answers])


@pytest.mark.parametrize(("max_words", "words"), [(11, 8), (12, 12), (13, 12), (15, 12), (16, 16)])
def test_story_is_cut_to_at_most_max_words(max_words, words):
    story = Story(("is", "it", "?", "-") * 5, ("yes", "no") * 2 + ("yes",))
    assert shortened(story, max_words) == Story(story.words[:words], story.answers[: words // 4])


def test_what_follows_the_last_question_is_cut_first():
    story = Story((*SECOND.words, "the", "end", "."), SECOND.answers)
    assert shortened(story, 15) == SECOND
    assert shortened(SECOND, 3) == SECOND


@pytest.mark.parametrize(
    ("line", "begins", "words", "due"),
    [
        ("Mary went to the hall.", False, "mary went to the hall .", 0),
        ("  12 Mary went\r", False, "mary went", 0),
        ("1 Where is Mary?", True, "where is mary ? - -", 2),
        ("1 Where is Mary? \tkitchen\t1", True, "where is mary ? -", 1),
        ("How do you go?\ts,w,n\t1 2", False, "how do you go ? - - -", 3),
        ("Say it\tno", False, "say it -", 1),
    ],
)
def test_typed_lines(line, begins, words, due):
    assert typed(line, 2) == (begins, Sentence(tuple(words.split()), ("-",) * due))


@pytest.mark.parametrize("line", ["1 ", "- ?", "\t", "what is it?\t"])
def test_lines_without_words_are_refused(line):
    with pytest.raises(ValueError, match='must have words, none of them "-", got'):
        typed(line, 1)
