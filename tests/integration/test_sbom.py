"""The bill of materials: what is installed, and deploy/bundled.py for what wheels carry inside."""

import importlib.util
import json
import subprocess
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from PIL import features

ROOT = Path(__file__).resolve().parents[2]
CHECKED = {"pillow", "soundfile", "torch", "torchvision"}
Bill = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundled", ROOT / "deploy" / "bundled.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inside(bill: Bill, wheel: str) -> dict[str, str | None]:
    """Versions of the libraries that a wheel carries, by their names."""
    (one,) = (one for one in bill["components"] if one["name"].lower() == wheel)
    return {inner["name"]: inner.get("version") for inner in one["components"]}


def assert_it_is_of_its_schema(bill: Bill) -> None:
    every = [*bill["components"]]
    for one in bill["components"]:
        every.extend(one.get("components", ()))
    assert len({one["bom-ref"] for one in every}) == len(every)
    # all of them would take a minute
    few = [one for one in bill["components"] if one["name"].lower() in CHECKED]
    text = json.dumps({**bill, "components": few, "dependencies": []})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def assert_it_has_what_opens_files(bill: Bill) -> None:
    sounds, pictures = inside(bill, "soundfile"), inside(bill, "pillow")
    assert sounds["libsndfile"] == soundfile.__libsndfile_version__
    assert set(sounds) == {"libsndfile", "flac", "lame", "mpg123", "ogg", "opus", "vorbis"}
    assert all(sounds[name] for name in ("flac", "lame", "opus", "vorbis"))
    assert pictures["libwebp"] == features.version("webp")
    assert pictures["libjpeg / libjpeg-turbo"] == features.version("libjpeg_turbo")
    assert pictures["libtiff"] == features.version("libtiff")
    assert pictures["libpng16"]
    assert {"libjpeg", "libpng16", "libwebp", "libz"} <= set(inside(bill, "torchvision"))


# one test, because two at once would write the same file
@pytest.mark.slow
def test_it_has_what_is_installed_and_what_wheels_carry() -> None:
    subprocess.run(["make", "-C", ROOT, "sbom"], check=True, capture_output=True)
    bill = json.loads((ROOT / "dist" / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "trimodal"
    listed = {one["name"].lower(): one["version"] for one in bill["components"]}
    for one in distributions():
        if one.name != "trimodal":
            assert listed[one.name.lower()] == one.version
    assert_it_is_of_its_schema(bill)
    assert_it_has_what_opens_files(bill)
    assert {"mkl", "onednn", "libgomp"} <= set(inside(bill, "torch"))
    assert inside(bill, "cryptography")["openssl"]
    assert inside(bill, "tokenizers")["onig"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("libjpeg-6dc8d115.so.62.4.0", "libjpeg"),
        ("libpng16.369abd48.so.16", "libpng16"),
        ("libgfortran-040039e1-0352e75f.so.5.0.0", "libgfortran"),
        ("libespeak-ng.so.1", "libespeak-ng"),
        ("libtorch_cpu.so", "libtorch_cpu"),
        ("_C.cpython-311-x86_64-linux-gnu.so", None),
        ("libpng.txt", None),
    ],
)
def test_a_shared_library_is_known_by_its_file(
    script: ModuleType, file: str, name: str | None
) -> None:
    match = script.SHARED.fullmatch(file)
    assert (match and match[1]) == name


def test_a_wheel_s_own_bill_goes_before_its_files(script: ModuleType, tmp_path: Path) -> None:
    own = {
        "components": [
            {"type": "library", "name": "libnone", "version": "1.2", "bom-ref": "a", "x": 1},
            {"type": "library", "name": "some", "purl": "pkg:pypi/some_wheel@1#c-ext"},
        ]
    }
    info = tmp_path / "some_wheel-1.dist-info"
    (info / "sboms").mkdir(parents=True)
    (info / "sboms" / "own.json").write_text(json.dumps(own))
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: some-wheel\nVersion: 1\n")
    files = ["some.libs/libnone-01234567.so.3", "some.libs/libother.so", "some.libs/libother.so.2"]
    rows = [f"{info.name}/sboms/own.json", *files]
    (info / "RECORD").write_text("".join(f"{row},,\n" for row in rows))
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    first, second = script.bundled(Distribution.at(info))
    assert first == {"type": "library", "name": "libnone", "version": "1.2"}
    told = [{"name": "trimodal:file", "value": file} for file in files[1:]]
    assert second == {"type": "library", "name": "libother", "properties": told}
