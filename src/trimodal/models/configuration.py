"""What a model folder says of its model in `config.json`.

model = TrimodalModel(TrimodalConfig(architecture=to_dict(config)))
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from trimodal.config import ModelConfig
from trimodal.schema import parse, to_dict


class TrimodalConfig(PreTrainedConfig):
    """The architecture as Hugging Face stores it; `architecture` is the checked form."""

    model_type = "trimodal"

    def __init__(
        self,
        architecture: Mapping[str, Any] | None = None,
        class_labels: Sequence[str] = (),
        class_inputs: Sequence[str] = ("image", "text", "speech"),
        generates: Sequence[str] = (),
        answers: bool | None = None,
        **kwargs: Any,
    ) -> None:
        parsed = parse(ModelConfig, architecture or {}, "architecture")
        self.architecture = to_dict(parsed)
        self.class_labels = list(class_labels)
        self.class_inputs = list(class_inputs)
        self.generates = list(generates)
        self.answers = answers
        """Whether it was trained on questions; None if nobody wrote that down."""
        super().__init__(**kwargs)
