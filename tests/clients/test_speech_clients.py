"""OpenAI's client, as it is published, takes speech while it is made."""

import io

import openai
import soundfile

from trimodal.models import TrimodalModel


def test_openai_takes_the_bytes_as_they_come(served: str, model: TrimodalModel) -> None:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        whole = client.audio.speech.create(
            model="tiny", input="a red square", voice="default", response_format="pcm"
        ).content
        for form in ("pcm", "wav"):
            with client.audio.speech.with_streaming_response.create(
                model="tiny",
                input="a red square",
                voice="default",
                response_format=form,
                stream_format="audio",
            ) as answer:
                data = b"".join(answer.iter_bytes())
                assert answer.headers["transfer-encoding"] == "chunked"
            if form == "wav":
                samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
                assert rate == model.sample_rate
                data = samples.tobytes()
            assert data == whole != b""
