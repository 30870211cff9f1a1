"""Results of `measure_generation` as text for a terminal.

print(format_generation(results))
"""

from collections.abc import Mapping
from typing import Any

from trimodal.evaluation.subgroups import format_parts
from trimodal.evaluation.table import grid, percent

HEADER = (
    *("generation", "right", "shuffled", "chance", "gain"),
    *("WER", "CER", "CIDEr", "Fréchet", "copies", "others alike", "samples"),
)


def format_generation(results: Mapping[str, Any]) -> str:
    """A line a direction; shares and error rates in percent.

    `right` is the exact matches of texts and what the judge finds right of pictures and speech.
    """
    if not results["directions"]:
        return ""
    lines = [_line(name, found) for name, found in results["directions"].items()]
    filled = [i for i in range(len(HEADER)) if i < 2 or any(line[i] for line in lines)]
    blocks = [grid([HEADER[i] for i in filled], [[line[i] for i in filled] for line in lines])]
    judges = results["judges"] or {}
    ceilings = ", ".join(
        f"{name} {percent(judges[name]['accuracy'])}"
        for name in ("image", "speech")
        if "accuracy" in judges.get(name, {})
    )
    if ceilings:
        blocks.append(f"(the judges on the real media: {ceilings})")
    if parts := format_parts(results):
        blocks.append(f"\n{parts}")
    return "\n".join(blocks)


def _line(name: str, found: Mapping[str, Any]) -> list[str]:
    main = "exact" if "exact" in found else "accuracy"
    compared = [found.get(key, {}).get(main) for key in ("shuffled", "chance", "gain")]
    return [
        name,
        *map(percent, [found.get(main), *compared, found.get("wer"), found.get("cer")]),
        *(f"{found[key]:.2f}" if key in found else "" for key in ("cider", "frechet")),
        percent(found.get("copies")),
        percent(found.get("copies_of_others")),
        str(found["samples"]),
    ]
