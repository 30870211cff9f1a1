"""What is left of the media of a manifest that a model's own tokenizers turn into codes and back.

results = resynthesis(model.processor.codes.tokenizers, read_manifest("data/digits/test.jsonl"))
print(format_resynthesis(results))
"""

from collections.abc import Mapping, Sequence

from trimodal.data import Row
from trimodal.evaluation.table import grid, percent
from trimodal.tokenizers import Tokenizers

COLUMNS = {
    "psnr": "PSNR (dB)",
    "error": "error",
    "distortion": "distortion (dB)",
    "griffin_lim": "by Griffin-Lim",
    "usage": "codes used",
    "perplexity": "perplexity",
}


def resynthesis(tokenizers: Tokenizers, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """What `trimodal tokenizer eval` gives of each tokenizer whose media the rows have.

    Returns:
        By `image` and `speech`; the numbers of the vocoder stand with those of speech.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
    """
    # it measures by this package, which is not there yet when this file is read
    from trimodal.training.tokenizers import measurement

    found: dict[str, dict[str, float]] = {}
    if tokenizers.vision is not None and any(row.image for row in rows):
        found["image"] = measurement.measure_vision(tokenizers.vision, rows)
    if tokenizers.speech is not None and any(row.speech for row in rows):
        found["speech"] = measurement.measure_speech(tokenizers.speech, rows)
        if tokenizers.vocoder is not None:
            found["speech"] |= measurement.measure_vocoder(
                tokenizers.vocoder, tokenizers.speech, rows
            )
    return found


def format_resynthesis(results: Mapping[str, Mapping[str, float]]) -> str:
    """A line a modality, without the columns in which nothing stands."""
    kept = [key for key in COLUMNS if any(key in found for found in results.values())]
    lines = [
        [name, *(_cell(key, found.get(key)) for key in kept)] for name, found in results.items()
    ]
    return grid(["codes and back", *(COLUMNS[key] for key in kept)], lines) if lines else ""


def _cell(key: str, value: float | None) -> str:
    if value is None or key == "usage":
        return percent(value)
    return f"{value:.1f}" if key == "perplexity" else f"{value:.2f}"
