"""OpenAI's client, as it is published, for all that generates: it gets what the library makes."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from PIL import Image

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.testing import assert_close

SHORT = 9
"""Pieces of the texts here, so that the tests are fast."""


@pytest.fixture(scope="module")
def sdk(served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def texts(model: TrimodalModel, wav: bytes) -> dict[Any, str]:
    """What the model hears, by language."""
    langs = (None, "en", "zh")
    return {lang: str(model.generate(speech=[wav], to="text", lang=lang)[0]) for lang in langs}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def seen(png: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def heard(wav: bytes) -> dict[str, Any]:
    data = base64.b64encode(wav).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def ask(sdk: openai.OpenAI, content: Any, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}]
    return sdk.chat.completions.create(
        model="tiny", messages=messages, **{"max_tokens": SHORT, **fields}
    )


def transcribed(sdk: openai.OpenAI, wav: bytes, **fields: Any) -> Any:
    return sdk.audio.transcriptions.create(model="tiny", file=("a.wav", wav), **fields)


def drawn(sdk: openai.OpenAI, **fields: Any) -> tuple[Any, list[Image.Image]]:
    answer = sdk.images.generate(**{"model": "tiny", "prompt": "a red square", **fields})
    assert answer.data is not None
    files = [base64.b64decode(item.b64_json or "") for item in answer.data]
    return answer, [Image.open(io.BytesIO(file)) for file in files]


def test_usage_and_the_reason_to_end(sdk: openai.OpenAI, png: bytes) -> None:
    answer = ask(sdk, [said("red?"), seen(png)], max_tokens=3)
    usage = answer.usage
    assert (usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")
    assert usage.total_tokens == usage.prompt_tokens + 3
    details = usage.prompt_tokens_details.model_dump()
    assert usage.prompt_tokens == details["text_tokens"] + details["image_tokens"]
    options = {"include_usage": True}
    *chunks, last = ask(
        sdk, [said("red?"), seen(png)], max_tokens=3, stream=True, stream_options=options
    )
    assert last.choices == []
    assert last.usage == usage
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_draws_are_those_of_the_seed(sdk: openai.OpenAI, model: TrimodalModel) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9}
    decoding = Decoding(max_tokens=SHORT, **options)
    texts = [
        ask(sdk, "red", seed=seed, **options, extra_body={"trimodal": {"lang": "en"}})
        for seed in (7, 8, 7)
    ]
    expected = model.generate(text=["red"] * 2, to="text", lang="en", seed=7, decoding=decoding)
    found = [answer.choices[0].message.content for answer in texts]
    assert found == [*expected, expected[0]]


def test_an_answer_that_is_a_picture(
    sdk: openai.OpenAI, model: TrimodalModel, wav: bytes, png: bytes
) -> None:
    content = [heard(wav), seen(png), said("red")]
    message = ask(sdk, content, modalities=["text", "image"], seed=4).choices[0].message
    (part,) = message.content
    assert message.images == message.content
    data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    expected = model.generate(speech=[wav], image=[png], text=["red"], to="image", seed=4)[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)


@pytest.mark.parametrize(
    ("text", "extension", "lang"),
    [("a red square", {}, "en"), ("红色的方块", {}, "zh"), ("red", {"lang": "zh"}, "zh")],
)
def test_speech_is_the_model_s(
    sdk: openai.OpenAI, model: TrimodalModel, text: str, extension: dict[str, str], lang: str
) -> None:
    body = {"seed": 6, "trimodal": extension}
    answer = sdk.audio.speech.create(
        model="tiny", input=text, voice="default", response_format="wav", extra_body=body
    )
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    expected = np.asarray(model.generate(text=[text], to="speech", lang=lang, seed=6)[0])
    assert rate == model.sample_rate
    assert samples.shape == expected.shape
    assert_close(samples, expected, "served-speech")


@pytest.mark.parametrize("form", [None, "png", "webp", "jpeg"])
def test_pictures_are_the_model_s(sdk: openai.OpenAI, model: TrimodalModel, form: Any) -> None:
    fields = {"output_format": form} if form else {}
    answer, pictures = drawn(sdk, n=3, extra_body={"seed": 5}, **fields)
    expected = model.generate(text=["a red square"] * 3, to="image", seed=5)
    assert answer.output_format == (form or "png")
    assert {picture.format for picture in pictures} == {(form or "png").upper()}
    assert answer.size == "16x12"
    for picture, one in zip(pictures, expected, strict=True):
        assert picture.size == (16, 12)
        if form != "jpeg":
            assert np.array_equal(np.asarray(picture), one)
    usage = answer.usage
    assert usage.input_tokens == usage.input_tokens_details.text_tokens > 0
    assert usage.output_tokens == 3 * 12
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize("partial", [0, 1, 3])
def test_a_stream_has_each_picture_in_order(sdk: openai.OpenAI, partial: int) -> None:
    body = {"seed": 5}
    with sdk.images.generate(
        model="tiny", prompt="red", n=2, stream=True, partial_images=partial, extra_body=body
    ) as events:
        found: list[Any] = list(events)
    done = [event for event in found if event.type == "image_generation.completed"]
    assert [event.usage.output_tokens for event in done] == [12, 12]
    whole, _ = drawn(sdk, prompt="red", n=2, extra_body=body)
    assert [event.b64_json for event in done] == [one.b64_json for one in whole.data or []]
    assert {event.size for event in found} == {"16x12"}
    kinds = ["image_generation.partial_image"] * partial + ["image_generation.completed"]
    assert [event.type for event in found] == 2 * kinds
    indices = [event.partial_image_index for event in found if "partial" in event.type]
    assert indices == 2 * list(range(partial))


def test_transcriptions_are_the_model_s(
    sdk: openai.OpenAI, texts: dict[Any, str], wav: bytes
) -> None:
    answer = transcribed(sdk, wav)
    assert answer.text == texts[None]
    usage = answer.usage
    assert usage.input_tokens == usage.input_token_details.audio_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert transcribed(sdk, wav, language="zh", response_format="json").text == texts["zh"]
    assert transcribed(sdk, wav, language="en", response_format="text") == texts["en"] + "\n"


def test_a_streamed_transcription(sdk: openai.OpenAI, texts: dict[Any, str], wav: bytes) -> None:
    *deltas, done = transcribed(sdk, wav, stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == done.text == texts[None]
    assert done.type == "transcript.text.done"
    assert done.usage.output_tokens > 0


@pytest.mark.filterwarnings("ignore:deprecated")
def test_translations_are_english(sdk: openai.OpenAI, texts: dict[Any, str], wav: bytes) -> None:
    translate = sdk.audio.translations.create
    assert translate(model="tiny", file=("a.wav", wav)).text == texts["en"]
    verbose: Any = translate(model="tiny", file=("a.wav", wav), response_format="verbose_json")
    assert (verbose.text, verbose.language) == (texts["en"], "english")
