from dataclasses import replace

import pytest

from trimodal.batch import Modality
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Request, default_decoding
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input
from trimodal_serving.orders import (
    MAX_SEED,
    Order,
    check_answers,
    check_generates,
    language_of,
    take_decoding,
    take_language,
    take_seed,
)

ITEM = Input("prompt", {Modality.TEXT: "red"})


@pytest.mark.parametrize("to", Modality)
def test_settings_are_the_library_s(to: Modality) -> None:
    assert Order(item=ITEM, to=to).settings() == (Request(to=to), default_decoding(to))


def test_settings_that_differ() -> None:
    changed = Order(item=ITEM, to=Modality.VISION, size=(8, 4), decoding={"steps": 3, "top_p": 0.5})
    request, decoding = changed.settings()
    assert request == Request(to=Modality.VISION, size=(8, 4))
    assert decoding == Decoding(guidance=1.5, steps=3, top_p=0.5)


def test_a_combination_that_there_is_not() -> None:
    with pytest.raises(ServingError, match="an answer is a text") as caught:
        Order(item=ITEM, to=Modality.SPEECH, answer=True).settings()
    assert (caught.value.code, caught.value.param) == ("unsupported_operation", "prompt")


def test_a_model_says_what_it_generates() -> None:
    check_generates(Modality.TEXT, ("text",), None)
    with pytest.raises(ServingError, match="generate speech; it generates image, text") as caught:
        check_generates(Modality.SPEECH, ("image", "text"), None)
    assert caught.value.code == "unsupported_operation"
    with pytest.raises(ServingError, match="it generates nothing"):
        check_generates(Modality.TEXT, (), None)


def test_questions_are_for_models_that_learnt_them() -> None:
    asked = Order(item=ITEM, to=Modality.TEXT, answer=True)
    for answers in (None, True):
        check_answers(asked, answers)
    check_answers(replace(asked, answer=False), False)
    with pytest.raises(ServingError, match="`describe` has it say") as caught:
        check_answers(asked, False)
    assert (caught.value.code, caught.value.param) == ("unsupported_operation", "prompt")


def test_languages() -> None:
    assert [language_of(text) for text in ("a red square", "红色", "a 红 square", "7")] == [
        "en",
        "zh",
        "zh",
        "en",
    ]
    assert take_language(Fields({"lang": "zh"})) == "zh"
    with pytest.raises(ServingError, match="must be one of en, zh") as caught:
        take_language(Fields({"language": "fr"}), "language")
    assert (caught.value.code, caught.value.param) == ("unsupported_language", "language")


def test_decoding_and_seed() -> None:
    fields = Fields({"temperature": 0, "steps": 4, "seed": 7, "guidance": None})
    assert take_decoding(fields, "temperature", "steps", "guidance") == {
        "temperature": 0,
        "steps": 4,
    }
    assert take_seed(fields) == 7
    assert take_seed(Fields({})) == 0
    for bad in ({"seed": -1}, {"seed": MAX_SEED}, {"seed": 1.5}, {"seed": True}):
        with pytest.raises(ServingError) as caught:
            take_seed(Fields(bad))
        assert caught.value.code == "invalid_seed"
