"""Raw media to numbers; no model code here."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimodal.processors.multimodal import TrimodalProcessor
    from trimodal.processors.speech import SpeechProcessor
    from trimodal.processors.text import TextProcessor
    from trimodal.processors.vision import VisionProcessor

__all__ = ["SpeechProcessor", "TextProcessor", "TrimodalProcessor", "VisionProcessor"]

_HOMES = {
    "SpeechProcessor": "speech",
    "TextProcessor": "text",
    "TrimodalProcessor": "multimodal",
    "VisionProcessor": "vision",
}


def __getattr__(name: str) -> Any:
    """Import on first use: files of pictures are written where transformers is not loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
