"""Compiles every shipped configuration for a GPU that need not be there, and says what it takes.

python -m trimodal_kernels.aot --arch 90 --json resources.json
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

KERNELS = (
    "attention.forward",
    "attention.backward",
    "contrastive.forward",
    "contrastive.backward",
    "gated.kernels",
    "linear_cross_entropy.kernels",
    "nearest.kernels",
)
"""Modules with a function `builds`, which names what they ship."""
SHARED_KILOBYTES = {80: 163, 90: 227}
"""What one program may take of an A100 (compute capability 8.0) and of an H100 or H200 (9.0)."""
MATRIX = re.compile(r"wgmma\.mma_async|mma\.sync")


@dataclass(frozen=True)
class Build:
    """One kernel with the constants with which it is launched."""

    name: str
    kernel: Any
    """What `triton.jit` made."""
    signature: Mapping[str, str]
    """Triton's types of the arguments that are no constants, such as `*bf16`."""
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int
    matrix: bool = True
    """It multiplies matrices, so its code must use the matrix units."""
    aligned: tuple[str, ...] = ()
    """Numbers among the arguments that are multiples of 16, such as strides."""


@dataclass(frozen=True)
class Resources:
    """What one program of a kernel takes."""

    name: str
    arch: int
    registers: int
    spilled: int
    """Bytes of a thread's registers that had to go to memory."""
    shared: int
    """Bytes."""
    matrix: int
    """Matrix instructions."""
    faults: tuple[str, ...] = field(default=())
    """What is wrong with it; none for one that may be shipped."""


def shipped(arch: int) -> list[Build]:
    """Every configuration of every kernel for an architecture."""
    modules = (import_module(f"trimodal_kernels.{name}") for name in KERNELS)
    return [build for module in modules for build in module.builds(arch)]


def resources(build: Build, arch: int) -> Resources:
    """Compile one configuration with Triton's own assembler; no GPU is touched.

    Args:
        build: the configuration.
        arch: compute capability, 80 or 90.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(build.kernel.arg_names)
    # what a launch finds out of its arguments: they are multiples of 16, or of 16 bytes
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if build.signature.get(name, "").startswith("*") or name in build.aligned
    }
    source = ASTSource(
        fn=build.kernel,
        signature={name: build.signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in build.constants.items()},
        attrs=aligned,
    )
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    found = _usage(Path(triton.__file__).parent, compiled.asm["cubin"])
    matrix = len(MATRIX.findall(compiled.asm["ptx"]))
    shared = int(compiled.metadata.shared)
    made = Resources(build.name, arch, found["REG"], found["STACK"], shared, matrix)
    return Resources(**{**asdict(made), "faults": tuple(_faults(build, made))})


def _usage(triton: Path, cubin: bytes) -> dict[str, int]:
    """Registers and stack of a thread, as the assembler noted them down."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton / "backends" / "nvidia" / "bin" / "cuobjdump"
        listing = subprocess.run(  # noqa: S603 - a tool of Triton on a file of ours
            [str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    return {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", listing.stdout)}


def _faults(build: Build, made: Resources) -> Iterable[str]:
    if made.spilled:
        yield f"spills {made.spilled} bytes"
    if made.shared > 1024 * SHARED_KILOBYTES[made.arch]:
        yield f"takes {made.shared / 1024:.0f} KiB of shared memory"
    if build.matrix and not made.matrix:
        yield "uses no matrix instruction"


def format_resources(rows: Sequence[Resources]) -> str:
    """A line for each."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'kernel':{width}}  arch  registers  spilled  shared KiB  matrix"]
    for row in rows:
        line = f"{row.name:{width}}  sm_{row.arch}  {row.registers:8}  {row.spilled:7}"
        line += f"  {row.shared / 1024:10.1f}  {row.matrix:6}"
        lines.append("  ".join([line, *row.faults]).rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a configuration has a fault."""
    parser = argparse.ArgumentParser(prog="python -m trimodal_kernels.aot", description=__doc__)
    parser.add_argument("--arch", type=int, choices=sorted(SHARED_KILOBYTES), default=90)
    parser.add_argument("--only", default="", help="configurations whose name begins so")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    chosen = [build for build in shipped(options.arch) if build.name.startswith(options.only)]
    if not chosen:
        parser.error(f"no configuration's name begins with {options.only}")
    rows = [resources(build, options.arch) for build in chosen]
    print(format_resources(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return int(any(row.faults for row in rows))


if __name__ == "__main__":
    sys.exit(main())
