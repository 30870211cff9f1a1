"""Random streams that are pure functions of their keys, so nothing about them has to be saved.

generator(seed, "augment", step, sample_id).random()
"""

import hashlib

import numpy as np


def digest(*keys: str | int) -> int:
    """A 64-bit hash of the keys, the same in every process and on every machine."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*keys: str | int) -> np.random.Generator:
    """A generator whose draws depend on nothing but the keys."""
    return np.random.Generator(np.random.Philox(key=digest(*keys)))


def permutation(size: int, *keys: str | int) -> np.ndarray:
    """The order (size,) of one epoch, a pure function of the keys."""
    return generator("permutation", *keys).permutation(size)
