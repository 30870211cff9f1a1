"""The model, as Hugging Face classes registered with its Auto classes."""

from transformers import AutoConfig, AutoModel, AutoProcessor

from trimodal.models.loading import load
from trimodal.models.trimodal import TrimodalConfig, TrimodalModel, TrimodalOutput
from trimodal.processors import TrimodalProcessor
from trimodal.vectors import cut

__all__ = ["TrimodalConfig", "TrimodalModel", "TrimodalOutput", "cut", "load"]

AutoConfig.register(TrimodalConfig.model_type, TrimodalConfig)
AutoModel.register(TrimodalConfig, TrimodalModel)
AutoProcessor.register(TrimodalConfig, TrimodalProcessor)
