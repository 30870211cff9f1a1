"""Weights in a safetensors file, and whether they are those of a module.

check_weights(path, module)
read_weights(module, path)
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from trimodal.errors import StorageError

FLOATING = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the types that weights may have."""


def check_weights(path: Path, module: nn.Module) -> None:
    """Compare the header of a file with a module, which may lie on the device `meta`.

    Nothing is allocated for it, whatever sizes the file claims.

    Raises:
        StorageError: the file is damaged, or a weight is missing, too many, of another shape or no
            float where it should be one.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            weights = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
            found = {name: weight.get_shape() for name, weight in weights.items()}
            types = {name: weight.get_dtype() for name, weight in weights.items()}
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    asked = module.state_dict()
    shapes = {name: list(weight.shape) for name, weight in asked.items()}
    for name in (*shapes, *found):
        if found.get(name) != shapes.get(name):
            raise StorageError(
                f"{path} does not fit config.json: {name} is {found.get(name, 'missing')}, "
                f"expected {shapes.get(name, 'none')}"
            )
        if asked[name].is_floating_point() and types[name] not in FLOATING:
            raise StorageError(f"{path}: {name} has values of type {types[name]}, not floats")


def read_weights(module: nn.Module, path: Path) -> None:
    """Fill a module from a file that `check_weights` has passed; strictly, nothing stays random.

    Raises:
        StorageError: the file cannot be read after all.
    """
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StorageError(f"{path} is damaged or does not fit config.json") from error
