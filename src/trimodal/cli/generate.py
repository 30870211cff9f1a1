"""`trimodal generate`: a text, a picture or speech from any of the three.

trimodal generate runs/demo/model --image six.png --to speech --lang en --out six.wav
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimodal.cli import (
    Command,
    add_device,
    add_token_budget,
    add_weights,
    check_output,
    make_output,
    positive,
)
from trimodal.config import SCHEDULES
from trimodal.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel
    from trimodal.models.decoding import Decoding
    from trimodal.models.generation import Request

MODALITIES = ("image", "text", "speech")
OF_TARGETS = {
    "lang": ("text", "speech"),
    "size": ("image",),
    "steps": ("image", "speech"),
    "schedule": ("image", "speech"),
    "choice_temperature": ("image", "speech"),
    "earliness": ("image", "speech"),
    "redraws": ("image", "speech"),
    "max_tokens": ("text",),
}
"""Options that decide something about these targets alone."""
MANIFEST = "manifest.jsonl"
"""Of what was generated for the rows of another one, in the folder of the outputs."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = (
        "examples: trimodal generate MODEL --image six.png --to text --lang zh;  "
        "trimodal generate MODEL --data test.jsonl --from image,text --to speech --out spoken"
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
    parser.add_argument("--to", choices=MODALITIES, required=True, help="what to generate")
    parser.add_argument("--image", metavar="FILE", type=Path, help="a picture to start from")
    parser.add_argument("--text", metavar="TEXT", help="a text to start from")
    parser.add_argument("--speech", metavar="FILE", type=Path, help="speech to start from")
    parser.add_argument("--complete", metavar="TEXT", help="what the generated text begins with")
    parser.add_argument("--data", metavar="MANIFEST", help="generate for all its rows")
    parser.add_argument(
        "--from",
        metavar="MODALITIES",
        dest="sources",
        type=_sources,
        help="of --data, what to start from: image, text, speech, or several with commas",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help="the file, or with --data the folder, to write; a text without it is printed",
    )
    parser.add_argument("--lang", choices=("en", "zh"), help="language of a text or of speech")
    parser.add_argument(
        "--answer",
        action="store_true",
        help="the text or the speech is a question: answer it from the rest",
    )
    parser.add_argument("--size", metavar="HxW", type=_size, help="of a picture, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    _add_decoding(parser)
    add_device(parser)
    add_weights(parser)
    add_token_budget(parser)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--temperature",
        type=float,
        help="of the draws, 0 takes the likeliest (default: 0 for texts, else 1)",
    )
    group.add_argument("--top-p", type=float, help="draw from this probability mass (default: 1)")
    group.add_argument(
        "--guidance",
        type=float,
        help="weight of the condition, 1 is none (default: 1 for texts, else 1.5)",
    )
    group.add_argument(
        "--steps", type=positive, help="in which pictures and speech are decoded (default: 8)"
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="how many codes are still masked after each step (default: cosine)",
    )
    group.add_argument(
        "--choice-temperature",
        metavar="T",
        type=float,
        help="of the noise in which codes are kept first (default: 1)",
    )
    group.add_argument(
        "--earliness",
        metavar="E",
        type=float,
        help="how much surer than the next each code counts, so that the first are kept first "
        "(default: 0)",
    )
    group.add_argument(
        "--redraws",
        metavar="COUNT",
        type=int,
        help="how often a picture or speech that is a copy of the given one is drawn again "
        "(default: 8)",
    )
    group.add_argument("--max-tokens", type=positive, help="of a text (default: 64)")


def _sources(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in MODALITIES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(MODALITIES)}")
    return list(dict.fromkeys(names))


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HEIGHTxWIDTH")
    return int(height), int(width)


def run(options: argparse.Namespace) -> int:
    """Generate one output, or one for each row."""
    single = {name: getattr(options, name) for name in (*MODALITIES, "complete")}
    given = [name for name, value in single.items() if value is not None]
    if options.data is not None:
        if given:
            raise ConfigError(f"--{given[0]}: with --data, name what to start from by --from")
        if options.sources is None or options.out is None:
            raise ConfigError("--data needs --from, what to start from, and --out, a folder")
    elif not given:
        raise ConfigError("nothing to start from: give --image, --text, --speech or --data")
    elif options.sources is not None:
        raise ConfigError("--from: needs --data, whose rows it chooses from")
    _check_used(options)
    if options.complete is not None and options.to != "text":
        raise ConfigError("--complete: only a text can be completed")
    if options.data is None and options.to != "text" and options.out is None:
        raise ConfigError(f"--out: names no file for the {options.to}")
    inputs = [options.model, *(p for p in (options.data, options.image, options.speech) if p)]
    if options.out is not None:
        check_output(options.out / MANIFEST if options.data else options.out, inputs)
    return _generate_all(options) if options.data else _generate_one(options)


def _check_used(options: argparse.Namespace) -> None:
    """Refuse what was given and would be ignored."""
    for name, targets in OF_TARGETS.items():
        if getattr(options, name) is not None and options.to not in targets:
            option = name.replace("_", "-")
            raise ConfigError(
                f"--{option}: decides nothing about the {options.to} that --to asks for"
            )


def _settings(options: argparse.Namespace) -> "tuple[Request, Decoding]":
    from dataclasses import fields, replace

    from trimodal.models.decoding import Decoding
    from trimodal.models.generation import Request, default_decoding, modality_of

    to = modality_of(options.to)
    request = Request(to=to, lang=options.lang, answer=options.answer, size=options.size)
    chosen = {field.name: getattr(options, field.name) for field in fields(Decoding)}
    changes = {name: value for name, value in chosen.items() if value is not None}
    return request, replace(default_decoding(to), **changes)


def _generate_one(options: argparse.Namespace) -> int:
    from trimodal.evaluation import load_model
    from trimodal.storage import check_writable, write_whole

    request, decoding = _settings(options)
    if options.out is not None:
        _check_suffix(options.out, options.to)
        check_writable(options.out)
    model = load_model(options.model, options.weights, options.device)
    columns = {
        name: None if getattr(options, name) is None else [getattr(options, name)]
        for name in (*MODALITIES, "complete")
    }
    (output,) = model.generate(
        **columns,
        to=options.to,
        lang=request.lang,
        answer=request.answer,
        size=request.size,
        seed=options.seed,
        decoding=decoding,
    )
    if options.out is None:
        print(output)
    else:
        write_whole(options.out, _encoded(model, output, options.out.suffix.lower()))
        print(f"{options.out} written")
    return 0


def _check_suffix(path: Path, to: str) -> None:
    from trimodal.processors.encoding import PICTURES, SOUNDS

    allowed = {"image": tuple(PICTURES), "text": (), "speech": tuple(SOUNDS)}[to]
    if allowed and path.suffix.lower() not in allowed:
        raise ConfigError(f"--out: {path} must end in one of {', '.join(allowed)}")


def _encoded(model: "TrimodalModel", output: Any, suffix: str) -> bytes:
    from trimodal.processors.encoding import PICTURES, SOUNDS, picture_bytes, speech_bytes

    if isinstance(output, str):
        return f"{output}\n".encode()
    if output.ndim == 3:
        return picture_bytes(output, PICTURES[suffix])
    return speech_bytes(output, model.sample_rate, SOUNDS[suffix])


def _generate_all(options: argparse.Namespace) -> int:
    import json

    from trimodal.batch import Modality
    from trimodal.data import read_manifest
    from trimodal.evaluation import load_model
    from trimodal.evaluation.generating import generate_rows
    from trimodal.progress import Progress
    from trimodal.storage import write_whole

    request, decoding = _settings(options)
    rows = read_manifest(options.data)
    model = load_model(options.model, options.weights, options.device)
    sources = [Modality.of(name) for name in options.sources]
    media, suffix = options.out / options.to, {"image": ".png", "speech": ".wav"}.get(options.to)
    make_output(media if suffix else options.out)
    manifest, lines = options.out / MANIFEST, []
    with Progress(len(rows), "generated", shown=True) as bar:
        for start, made in generate_rows(
            model,
            rows,
            sources,
            request,
            decoding,
            seed=options.seed,
            token_budget=options.token_budget,
        ):
            if suffix and start == 0:
                _remove(manifest)
            for index, one in enumerate(made, start):
                value = one.output
                if suffix:
                    path = media / f"{index:06d}{suffix}"
                    write_whole(path, _encoded(model, value, suffix))
                    value = f"{options.to}/{path.name}"
                line = {"id": rows[index].id, options.to: value}
                if request.lang is not None and options.to != "image":
                    line["speech_lang" if options.to == "speech" else "lang"] = request.lang
                lines.append(json.dumps(line, ensure_ascii=False))
            bar.advance(len(made))
    # the manifest comes last: where it is, everything is
    write_whole(manifest, ("\n".join(lines) + "\n").encode())
    print(f"{manifest}: {len(lines)} rows")
    return 0


def _remove(manifest: Path) -> None:
    """Remove the manifest of media that are about to be written over."""
    try:
        manifest.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{manifest} cannot be removed: {error.strerror}") from error


COMMAND = Command("generate", "generate text, pictures or speech from any of them", configure, run)
