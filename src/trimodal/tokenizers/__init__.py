"""Learnt tokenizers: pictures and speech to codes and back, and speech from frames to sound."""

from trimodal.tokenizers.best_rq import BestRQ
from trimodal.tokenizers.config import (
    SpeechTokenizerConfig,
    VisionTokenizerConfig,
    VocoderConfig,
)
from trimodal.tokenizers.fsq import FSQ
from trimodal.tokenizers.mel import griffin_lim
from trimodal.tokenizers.speech import SpeechTokenizer, load_speech_tokenizer
from trimodal.tokenizers.stored import fingerprint
from trimodal.tokenizers.tokenizers import Tokenizers
from trimodal.tokenizers.vision import VisionTokenizer, load_vision_tokenizer
from trimodal.tokenizers.vocoder import Vocoder, load_vocoder

__all__ = [
    "FSQ",
    "BestRQ",
    "SpeechTokenizer",
    "SpeechTokenizerConfig",
    "Tokenizers",
    "VisionTokenizer",
    "VisionTokenizerConfig",
    "Vocoder",
    "VocoderConfig",
    "fingerprint",
    "griffin_lim",
    "load_speech_tokenizer",
    "load_vision_tokenizer",
    "load_vocoder",
]
