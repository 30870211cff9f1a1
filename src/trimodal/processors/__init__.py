"""Raw media to numbers; no model code here."""

from trimodal.processors.multimodal import TrimodalProcessor
from trimodal.processors.speech import SpeechProcessor
from trimodal.processors.text import TextProcessor
from trimodal.processors.vision import VisionProcessor

__all__ = ["SpeechProcessor", "TextProcessor", "TrimodalProcessor", "VisionProcessor"]
