"""Pre-train, fine-tune and serve one model of images, text and speech.

model = trimodal.load("runs/demo/model")
vectors = model.embed(image=["six.png"], text=["six"])
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from trimodal.errors import TrimodalError

if TYPE_CHECKING:
    from trimodal.finetune import finetune
    from trimodal.models import TrimodalConfig, TrimodalModel, load
    from trimodal.processors import TrimodalProcessor

try:
    __version__ = version("trimodal")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
__all__ = [
    "TrimodalConfig",
    "TrimodalError",
    "TrimodalModel",
    "TrimodalProcessor",
    "__version__",
    "finetune",
    "load",
]

_HOMES = {
    "TrimodalConfig": "trimodal.models",
    "TrimodalModel": "trimodal.models",
    "TrimodalProcessor": "trimodal.processors",
    "finetune": "trimodal.finetune",
    "load": "trimodal.models",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import trimodal` loads neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trimodal' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
