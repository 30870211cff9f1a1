from typing import Any

import pytest

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import MAX_INPUTS, MAX_MEDIA, Input, Reading, parse_inputs
from trimodal_serving.media import EncodedMedium, LinkedMedium, TokenIds

IMAGE = "data:image/png;base64,AAAA"
AUDIO = "data:audio/wav;base64,BBBB"
V, T, S = Modality.VISION, Modality.TEXT, Modality.SPEECH
SEEN, HEARD = EncodedMedium(V, "AAAA"), EncodedMedium(S, "BBBB")


@pytest.mark.parametrize(
    ("value", "modality", "expected"),
    [
        ("a dog", None, [("input", {T: "a dog"})]),
        (["a", "b"], None, [("input[0]", {T: "a"}), ("input[1]", {T: "b"})]),
        (
            [IMAGE, "http://x/y.png"],
            None,
            [("input[0]", {T: IMAGE}), ("input[1]", {T: "http://x/y.png"})],
        ),
        (IMAGE, V, [("input", {V: SEEN})]),
        (["AAAA"], V, [("input[0]", {V: SEEN})]),
        ([AUDIO, "BBBB"], S, [("input[0]", {S: HEARD}), ("input[1]", {S: HEARD})]),
        (["a"], T, [("input[0]", {T: "a"})]),
        (
            [{"text": "a"}, {"image": IMAGE}, {"audio": AUDIO}, {"speech": "BBBB"}],
            None,
            [
                ("input[0]", {T: "a"}),
                ("input[1]", {V: SEEN}),
                ("input[2]", {S: HEARD}),
                ("input[3]", {S: HEARD}),
            ],
        ),
        ([{"image": {"url": IMAGE}}], None, [("input[0]", {V: SEEN})]),
        ([{"image": {"bytes": "AAAA"}}], None, [("input[0]", {V: SEEN})]),
        (" HTTPS://x/y.png ", V, [("input", {V: LinkedMedium(V, "HTTPS://x/y.png")})]),
        ([{"audio": "http://x/y"}], None, [("input[0]", {S: LinkedMedium(S, "http://x/y")})]),
        ({"text": "a", "image": IMAGE}, None, [("input", {T: "a", V: SEEN})]),
        (["x", {"text": "a"}], None, [("input[0]", {T: "x"}), ("input[1]", {T: "a"})]),
        ([{"content": "a"}], None, [("input[0]", {T: "a"})]),
        (
            [
                {
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
                        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
                    ]
                }
            ],
            None,
            [("input[0]", {T: "a", V: SEEN, S: HEARD})],
        ),
        (
            [{"content": [{"type": "image_url", "image_url": IMAGE}]}],
            None,
            [("input[0]", {V: SEEN})],
        ),
    ],
)
def test_forms(value: Any, modality: Modality | None, expected: list[Any]) -> None:
    inputs = parse_inputs(value, Reading(modality))
    assert [(item.where, dict(item.media)) for item in inputs] == expected


def test_a_string_without_modality_is_text_whatever_it_looks_like() -> None:
    assert parse_inputs(IMAGE)[0].media == {T: IMAGE}


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ([], "empty_input", "input"),
        ("", "empty_input", "input"),
        (["a", " \n"], "empty_input", "input[1]"),
        ([{}], "empty_input", "input[0]"),
        ([{"content": []}], "empty_input", "input[0]"),
        (7, "invalid_type", "input"),
        (True, "invalid_type", "input"),
        (["a", 1.5], "invalid_type", "input[1]"),
        ([None], "invalid_type", "input[0]"),
        ([["a"]], "invalid_type", "input[0]"),
        ([{"text": 7}], "invalid_type", "input[0]"),
        ([{"text": {"url": IMAGE}}], "invalid_type", "input[0]"),
        ([{"content": 7}], "invalid_type", "input[0]"),
        ([{"content": ["a"]}], "invalid_type", "input[0]"),
        ([{"content": [{"type": "text"}]}], "invalid_type", "input[0]"),
        (
            [{"content": [{"type": "input_audio", "input_audio": "BBBB"}]}],
            "invalid_type",
            "input[0]",
        ),
        ([{"content": [{"type": "video", "video": "x"}]}], "invalid_input", "input[0]"),
        ([{"content": [{"type": ["text"], "text": "x"}]}], "invalid_input", "input[0]"),
        ([{"image": {"url": IMAGE, "bytes": "AAAA"}}], "invalid_input", "input[0]"),
        ([{"text": "a", "video": "x"}], "unknown_field", "input[0]"),
        ([{"content": "a", "role": "user"}], "unknown_field", "input[0]"),
        ([{"content": [{"type": "text", "text": "a", "x": 1}]}], "unknown_field", "input[0]"),
        ([{"audio": AUDIO, "speech": AUDIO}], "duplicate_modality", "input[0]"),
        (
            [{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            "duplicate_modality",
            "input[0]",
        ),
        ([1, 2, 3], "token_ids_not_supported", "input"),
        ([[1, 2], [3]], "token_ids_not_supported", "input"),
        (["a", [3]], "token_ids_not_supported", "input"),
        (["a", {"image": "ftp://x/y.png"}], "url_not_allowed", "input[1]"),
        ([{"image": {"url": "file:///etc/passwd"}}], "url_not_allowed", "input[0]"),
    ],
)
def test_other_forms_are_refused(value: Any, code: str, param: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_inputs(value)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


def test_token_ids_name_the_way_out() -> None:
    with pytest.raises(ServingError, match="check_embedding_ctx_length=False"):
        parse_inputs([[1, 2, 3]])


def test_modality_is_for_strings_only() -> None:
    with pytest.raises(ServingError, match="an object says it by its keys"):
        parse_inputs([{"text": "a"}], Reading(Modality.TEXT))


@pytest.mark.parametrize(
    "value",
    [["a"] * (MAX_INPUTS + 1), [{"image": "AAAA"}] * (MAX_MEDIA + 1)],
    ids=["inputs", "media"],
)
def test_long_lists_are_refused(value: list[Any]) -> None:
    with pytest.raises(ServingError) as caught:
        parse_inputs(value)
    assert (caught.value.status, caught.value.code) == (413, "too_many_inputs")


def test_longest_lists_are_taken() -> None:
    assert len(parse_inputs(["a"] * MAX_INPUTS)) == MAX_INPUTS
    assert len(parse_inputs(["AAAA"] * MAX_MEDIA, Reading(V))) == MAX_MEDIA


@pytest.mark.parametrize(
    ("key", "shown"), [("colour", "`colour`"), ("<script>", "unusual"), ("x" * 65, "unusual")]
)
def test_an_unknown_field_is_named_if_that_is_harmless(key: str, shown: str) -> None:
    with pytest.raises(ServingError, match=shown):
        parse_inputs([{key: 1}])


def test_token_ids_are_read_where_they_are_asked_for() -> None:
    reading = Reading(token_ids=True)
    assert parse_inputs([1, 2], reading) == [Input("input", {T: TokenIds((1, 2))})]
    inputs = parse_inputs([[1, 2], "a", [3]], reading)
    assert [one.media[T] for one in inputs] == [TokenIds((1, 2)), "a", TokenIds((3,))]
    assert [one.where for one in inputs] == ["input[0]", "input[1]", "input[2]"]


def test_conversations_hold_one_message_of_the_user() -> None:
    reading = Reading(name="messages", chat=True)
    message = {"role": "user", "content": [{"type": "image_base64", "image_base64": IMAGE}]}
    assert [one.media for one in parse_inputs([[message], message], reading)] == [{V: SEEN}] * 2


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([[]], "unsupported_messages"),
        ([[{"role": "user", "content": "a"}] * 2], "unsupported_messages"),
        ([{"role": "system", "content": "a"}], "unsupported_messages"),
        ([{"role": "user"}], "missing_field"),
        (["a"], "invalid_type"),
        ([{"role": "user", "content": "a", "name": "x"}], "unknown_field"),
    ],
)
def test_other_conversations_are_refused(value: Any, code: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_inputs(value, Reading(name="messages", chat=True))
    assert (caught.value.code, caught.value.param) == (code, "messages[0]")


@pytest.mark.parametrize(
    ("value", "reading", "message"),
    [
        ([""], Reading(), "an input is empty"),
        (["a", "  "], Reading(), "an input holds nothing but white space"),
        ([[]], Reading(), "an input must be a string or an object"),
        ([[]], Reading(token_ids=True), "an input is an empty list"),
        (
            [["a"]],
            Reading(token_ids=True),
            "an input must be a string, an object or a list of whole numbers",
        ),
    ],
)
def test_what_is_said_is_true(value: Any, reading: Reading, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_inputs(value, reading)
    assert caught.value.message == message
