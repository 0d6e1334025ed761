"""What `shapes` shows and says: held-out combinations, captions, questions with one right answer."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from antmmf.errors import ConfigError
from antmmf_tasks.datasets.shapes.language import LANGUAGES, Language, captions, reversed_captions, transcript
from antmmf_tasks.datasets.shapes.questions import NUM_OPTIONS, choices, questions
from antmmf_tasks.datasets.shapes.render import render
from antmmf_tasks.datasets.shapes.world import (
    COLOURS,
    EVENTS,
    MOTIONS,
    NUM_PHRASINGS,
    SHAPES,
    Scene,
    Split,
    Thing,
    home_split,
    make_scenes,
    scene_from_json,
    scenes_as_twins,
)

RED = Thing("red", "circle", "blink", 0.3, 0.3, 0.17, 0.18, (0,))
BLUE = Thing("blue", "square", "grow", 0.7, 0.7, 0.17, 0.18, (1,))
ORANGE = Thing("orange", "cross", "left", 0.3, 0.3, 0.17, 0.18)
ORDER = Scene("a", "order", (RED, BLUE), "noise", 7, 0, "b")


@pytest.fixture(scope="module")
def splits() -> dict[Split, list[Scene]]:
    """The default data set."""
    sizes: dict[Split, int] = {"train": 3000, "val": 200, "test": 600}
    return {split: make_scenes(num, split=split, seed=0) for split, num in sizes.items()}


def shown(scenes: list[Scene]) -> set[tuple[str, str, str]]:
    return {thing.combination for scene in scenes for thing in scene.things}


def test_no_split_shows_a_combination_of_another(splits: dict[Split, list[Scene]]) -> None:
    for one, two in combinations(splits.values(), 2):
        assert not shown(one) & shown(two)


def test_training_shows_every_attribute_and_every_pair_of_two_that_tests_show(
    splits: dict[Split, list[Scene]],
) -> None:
    trained, tested = shown(splits["train"]), shown(splits["test"]) | shown(splits["val"])
    for part in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        seen = {tuple(each[i] for i in part) for each in trained}
        assert {tuple(each[i] for i in part) for each in tested} <= seen
    assert {each[0] for each in tested} == set(COLOURS)
    assert {each[1] for each in tested} == set(SHAPES)
    assert {each[2] for each in tested} == set(MOTIONS)


def test_a_sixth_of_the_world_is_held_out_for_each_evaluation() -> None:
    homes = Counter(home_split(c, s, m) for c in COLOURS for s in SHAPES for m in MOTIONS)
    assert homes["test"] / homes.total() == pytest.approx(1 / 6, abs=0.02)
    assert homes["val"] / homes.total() == pytest.approx(1 / 6, abs=0.02)


def test_the_test_split_has_three_hundred_order_clips_and_as_many_others(splits: dict[Split, list[Scene]]) -> None:
    kinds = Counter(scene.kind for scene in splits["test"])
    assert kinds["order"] == 300
    assert kinds.total() - kinds["order"] == 300
    assert len(list(scenes_as_twins(splits["test"]))) == 150


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_caption_of_an_evaluation_is_true_of_two_clips(
    splits: dict[Split, list[Scene]], split: Split, language: Language
) -> None:
    texts = [set(captions(scene, language=language)) for scene in splits[split]]
    assert len(set.union(*texts)) == sum(map(len, texts))
    assert len({scene.meaning() for scene in splits[split]}) == len(splits[split])


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_an_order_clip_hold_the_same_words_as_their_false_ones(
    splits: dict[Split, list[Scene]], language: Language
) -> None:
    for scene in (scene for scene in splits["test"] if scene.kind == "order"):
        true, false = captions(scene, language=language), reversed_captions(scene, language=language)
        for one, other in zip(true, false, strict=True):
            words = (lambda text: text.replace(",", "").split()) if language == "en" else list
            assert one != other
            assert Counter(words(one)) == Counter(words(other))


def test_captions_are_short_and_as_many_as_announced(splits: dict[Split, list[Scene]]) -> None:
    for scene in splits["train"]:
        english, chinese = captions(scene, language="en"), captions(scene, language="zh")
        assert len(set(english)) == len(set(chinese)) == NUM_PHRASINGS[scene.kind]
        assert max(len(text.split()) for text in english) <= 20
        assert max(map(len, chinese)) <= 32


def test_english_captions_read_well() -> None:
    assert captions(ORDER, language="en")[0] == "the red circle blinks, then the blue square grows"
    group = Scene("g", "group", (ORANGE,) * 3, "noise", 0, 0)
    assert captions(group, language="en")[0] == "three orange crosses move left"
    pair = Scene("p", "pair", (RED, ORANGE), "noise", 0, 0)
    assert captions(pair, language="en")[1] == "a red circle blinks while an orange cross moves left"


def test_chinese_captions_read_well() -> None:
    assert captions(ORDER, language="zh")[0] == "红色圆形闪烁，然后蓝色方形变大"
    assert captions(Scene("g", "group", (ORANGE,) * 3, "noise", 0, 0), language="zh")[0] == "三个橙色十字形向左移动"


def test_a_transcript_says_what_happens_when_it_happens() -> None:
    assert transcript(ORDER, language="en", seconds=3.0) == [
        (0.0, 1.5, "now the red circle blinks"),
        (1.5, 3.0, "now the blue square grows"),
    ]


def test_questions_cover_every_type_and_have_one_answer_each(splits: dict[Split, list[Scene]]) -> None:
    types: set[str] = set()
    for scene in splits["test"]:
        for language in LANGUAGES:
            asked = questions(scene, language=language)
            assert len({each.question for each in asked}) == len(asked)
            types |= {each.kind for each in asked}
    assert types == {"colour", "shape", "motion", "count", "order", "before"}


def test_twins_get_the_same_questions_and_opposite_answers_about_time(splits: dict[Split, list[Scene]]) -> None:
    for one, two in scenes_as_twins(splits["test"]):
        first, second = ({q.question: (q.kind, q.answer) for q in questions(s, language="en")} for s in (one, two))
        assert first.keys() == second.keys()
        for question, (kind, answer) in first.items():
            assert (answer != second[question][1]) == (kind in ("order", "before"))


def test_questions_about_the_red_circle() -> None:
    answers = {each.question: each.answer for each in questions(ORDER, language="en")}
    assert answers["what colour is the circle?"] == "red"
    assert answers["what shape is blue?"] == "square"
    assert answers["what does the red circle do?"] == "blinks"
    assert answers["how many shapes are there?"] == "two"
    assert answers["what colour is the shape that acts last?"] == "blue"
    assert answers["does the blue square grow before the red circle blinks?"] == "no"


def test_every_choice_has_four_different_options_with_one_right(splits: dict[Split, list[Scene]]) -> None:
    for scene in splits["test"]:
        for each in choices(scene, language="en"):
            assert len(set(each.options)) == NUM_OPTIONS
            assert each.answer in each.options


def test_an_order_clip_must_be_told_from_its_reverse(splits: dict[Split, list[Scene]]) -> None:
    for scene in (scene for scene in splits["test"] if scene.kind == "order"):
        choice = choices(scene, language="en")[0]
        assert reversed_captions(scene, language="en")[scene.phrasing] in choice.options


def test_the_right_option_is_at_every_place_about_as_often(splits: dict[Split, list[Scene]]) -> None:
    places = Counter(q.options.index(q.answer) for s in splits["test"] for q in choices(s, language="en"))
    assert min(places.values()) / places.total() > 0.2


def test_every_event_leaves_its_first_and_last_frame_as_if_it_were_not_there() -> None:
    for shape in SHAPES:
        for event in EVENTS:
            thing = Thing("red", shape, event, 0.5, 0.5, 0.2, 0.0, (0, 1))
            frames = render(Scene("x", "group", (thing,), "gradient", 3, 0), size=48, num_frames=16).astype(int)
            still = frames[0]
            for rest in (frames[7], frames[8], frames[15]):
                assert np.abs(rest - still).mean() < 0.05
            if (shape, event) != ("circle", "spin"):
                middle = frames[1:7]
                assert np.abs(middle - still).mean((1, 2, 3)).max() > 1


def test_a_scene_survives_json(splits: dict[Split, list[Scene]]) -> None:
    scene = splits["test"][-1]
    assert scene_from_json(scene.to_json()) == scene


def test_asking_for_more_than_the_world_holds_is_an_error() -> None:
    with pytest.raises(ConfigError, match="num_val asks for more clips of different meaning than there are"):
        make_scenes(20000, split="val", seed=0)
