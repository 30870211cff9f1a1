import pytest

from trimodal.data.captions import caption, one, pair_name, paraphrases, questions
from trimodal.data.shapes import Figure, Scene

GROUND = (200, 200, 200)


def figure(colour: str, shape: str) -> Figure:
    return Figure(colour, shape, 32, 32, 8)


SINGLE = Scene("single", (figure("orange", "star"),), GROUND, link=2)
COUNT = Scene("count", (figure("blue", "cross"),) * 3, GROUND)
RELATION = Scene("relation", (figure("red", "ring"), figure("red", "square")), GROUND, link=3)
TRIO = Scene(
    "trio",
    (figure("black", "ring"), figure("white", "ring"), figure("white", "square")),
    GROUND,
)


@pytest.mark.parametrize(
    ("scene", "english", "chinese"),
    [
        (SINGLE, "an orange star at the top right", "右上角有一个橙色的星形"),
        (COUNT, "three blue crosses", "三个蓝色的十字"),
        (
            RELATION,
            "a red ring to the right of a red square",
            "一个红色的圆环在一个红色的正方形的右边",
        ),
        (
            TRIO,
            "a black ring, a white ring and a white square",
            "一个黑色的圆环、一个白色的圆环和一个白色的正方形",
        ),
    ],
)
def test_captions(scene: Scene, english: str, chinese: str) -> None:
    assert caption(scene, "en") == english
    assert caption(scene, "zh") == chinese


@pytest.mark.parametrize(
    ("scene", "asked"),
    [
        (
            SINGLE,
            [
                ("what colour is the star?", "orange", "星形是什么颜色？", "橙色"),
                ("what shape is the orange one?", "star", "橙色的是什么形状？", "星形"),
                ("where is the star?", "at the top right", "星形在哪里？", "右上角"),
            ],
        ),
        (
            COUNT,
            [
                ("how many crosses are there?", "three", "有几个十字？", "三个"),
                ("what colour are the crosses?", "blue", "十字是什么颜色？", "蓝色"),
            ],
        ),
        (
            RELATION,  # both are red, so no question asks what the red one is
            [
                ("what colour is the ring?", "red", "圆环是什么颜色？", "红色"),
                ("what colour is the square?", "red", "正方形是什么颜色？", "红色"),
                (
                    "where is the red ring?",
                    "to the right of the red square",
                    "红色的圆环在哪里？",
                    "在红色的正方形的右边",
                ),
            ],
        ),
        (
            TRIO,  # two rings, two white ones
            [
                ("what shape is the black one?", "ring", "黑色的是什么形状？", "圆环"),
                ("what colour is the square?", "white", "正方形是什么颜色？", "白色"),
            ],
        ),
    ],
)
def test_questions_have_one_answer(scene: Scene, asked: list[tuple[str, str, str, str]]) -> None:
    assert questions(scene, "en") == [(q, a) for q, a, _, _ in asked]
    assert questions(scene, "zh") == [(q, a) for _, _, q, a in asked]


def test_two_figures_may_be_told_in_either_order() -> None:
    assert paraphrases(RELATION, "en") == [
        "a red ring to the right of a red square",
        "a red square to the left of a red ring",
    ]
    above = Scene("relation", RELATION.figures, GROUND, link=0)
    assert paraphrases(above, "zh")[1] == "一个红色的正方形在一个红色的圆环的下面"
    for scene in (SINGLE, COUNT, TRIO):
        assert paraphrases(scene, "en") == [caption(scene, "en")]


def test_names() -> None:
    assert pair_name(("red", "circle"), "en") == "red circle"
    assert pair_name(("red", "circle"), "zh") == "红色的圆形"
    assert one(("orange", "circle"), "en") == "an orange circle"
    assert one(("red", "circle"), "zh") == "一个红色的圆形"
