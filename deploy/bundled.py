"""Libraries that wheels carry inside, put into a bill of materials beneath the wheel that has them.

python deploy/bundled.py dist/sbom.json

A package index knows nothing of the libsndfile within soundfile, or the OpenSSL within
cryptography. They are found in three ways: the bill that a wheel brings along (PEP 770), the shared
libraries among its files, and what is known to be linked into some of them. A version is what the
library itself says; where it says nothing there is none.
"""

import ctypes
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

Component = dict[str, Any]

SHARED = re.compile(r"(lib[\w+-]+?)(?:[-.][0-9a-f]{8})*\.so(?:\.\d+)*")
"""File names of shared libraries; what repairs wheels puts digits of a hash into them."""
KEPT = ("type", "name", "version", "purl", "licenses")
"""Of what a wheel's own bill says; its references would point nowhere here."""


def _text(function: Callable[..., Any]) -> str | None:
    function.restype = ctypes.c_char_p  # pyright: ignore[reportFunctionMemberAccess]
    return _digits((function(None) or b"").decode("latin-1"))


def _packed(function: Callable[..., Any]) -> str | None:
    number = function()
    return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _digits(text: str) -> str | None:
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else None


ASKED: dict[str, tuple[str, Callable[[Callable[..., Any]], str | None]]] = {
    "libavif": ("avifVersion", _text),
    "libcrypto": ("OpenSSL_version", _text),
    "libespeak-ng": ("espeak_Info", _text),
    "libharfbuzz": ("hb_version_string", _text),
    "liblzma": ("lzma_version_string", _text),
    "libopenjp2": ("opj_version", _text),
    "libpcre": ("pcre_version", _text),
    "libpng16": ("png_get_libpng_ver", _text),
    "libscipy_openblas": ("scipy_openblas_get_config", _text),
    "libscipy_openblas64_": ("scipy_openblas_get_config64_", _text),
    "libsndfile": ("sf_version_string", _text),
    "libtiff": ("TIFFGetVersion", _text),
    "libwebp": ("WebPGetDecoderVersion", _packed),
    "libz": ("zlibVersion", _text),
    "libzstd": ("ZSTD_versionString", _text),
}
"""The function that tells a library's version, and how its answer is read."""

LINKED = {
    "libsndfile": {
        "flac": rb"reference libFLAC ([\d.]+)",
        "lame": rb"LAME(\d+\.\d+)",
        "mpg123": rb"mpg123()",
        "ogg": rb"libogg()",
        "opus": rb"libopus ([\d.]+)",
        "vorbis": rb"libVorbis ([\d.]+)",
    }
}
"""What is linked into a library, and the words within it that tell so."""

TORCH = {"mkl": r"Math Kernel Library Version ([\d.]+)", "onednn": r"MKL-DNN v([\d.]+)"}


def _library(name: str, version: str | None, paths: list[str]) -> Component:
    component: Component = {"type": "library", "name": name}
    if version:
        component["version"] = version
    properties = [{"name": "trimodal:file", "value": path} for path in sorted(paths)]
    return {**component, "properties": properties} if properties else component


def _own(distribution: Distribution) -> Iterator[Component]:
    """What the bills say that a wheel brings along."""
    own = f"pkg:pypi/{canonicalize_name(distribution.name)}@"
    for path in distribution.files or ():
        if path.parent.name == "sboms" and path.suffix == ".json":
            for one in json.loads(path.read_text(encoding="utf-8")).get("components", ()):
                if not one.get("purl", "").replace("_", "-").startswith(own):
                    yield {key: one[key] for key in KEPT if key in one}


def _shared(distribution: Distribution) -> Iterator[Component]:
    """The shared libraries among the files of a wheel, and what is known to be inside them."""
    found: dict[str, list[Path]] = {}
    names: dict[str, list[str]] = {}
    for path in distribution.files or ():
        match = SHARED.fullmatch(path.name)
        if match is not None:
            name = re.sub(r"_(x86_64|aarch64|arm64)$", "", match[1])
            found.setdefault(name, []).append(Path(str(path.locate())))
            names.setdefault(name, []).append(path.as_posix())
    for name, paths in found.items():
        yield _library(name, version_of(name, paths[0]), names[name])
        for inner, words in LINKED.get(name, {}).items():
            told = re.search(words, paths[0].read_bytes())
            if told is not None:
                yield _library(inner, told[1].decode(), names[name])


def version_of(name: str, path: Path) -> str | None:
    """What a library says its version is; None if it says nothing that is understood here."""
    if name not in ASKED:
        return None
    symbol, read = ASKED[name]
    try:
        function = getattr(ctypes.CDLL(str(path)), symbol, None)
    except OSError:  # it needs another library, or another machine
        return None
    return None if function is None else read(function)


def _torch(distribution: Distribution) -> Iterator[Component]:
    if distribution.name == "torch":
        import torch

        built = torch.__config__.show()
        for name, words in TORCH.items():
            told = re.search(words, built)
            if told is not None:
                yield _library(name, told[1], [])


def bundled(distribution: Distribution) -> list[Component]:
    """The libraries inside a wheel, each once, by name and version."""
    found: dict[tuple[str, str], Component] = {}
    for source in (_own, _shared, _torch):
        for one in source(distribution):
            found.setdefault((one["name"], one.get("version", "")), one)
    known = {name for name, version in found if version}
    return [found[key] for key in sorted(found) if key[1] or key[0] not in known]


def complete(bill: dict[str, Any]) -> int:
    """Put what wheels carry beneath their components; how many libraries that are."""
    wheels = {canonicalize_name(one["name"]): one for one in bill["components"]}
    count = 0
    for distribution in distributions():
        wheel = wheels.get(canonicalize_name(distribution.name))
        inside = bundled(distribution) if wheel is not None else []
        if wheel is not None and inside:
            for one in inside:
                one["bom-ref"] = f"{wheel['bom-ref']}#{one['name']}@{one.get('version', '')}"
            wheel["components"] = inside
            count += len(inside)
    return count


def main(path: Path) -> None:
    """Complete a bill of materials of this environment in its place."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    count = complete(bill)
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    print(f"sbom: {path}, with {count} libraries that wheels carry inside")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
