import builtins
import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.evaluation import report
from trimodal.evaluation.judges import Judges, JudgesConfig
from trimodal.evaluation.report import write_report
from trimodal.testing import write_tiny_manifest

NINE = [f"{a} → {b}" for a in ("image", "text", "speech") for b in ("image", "text", "speech")]
TEXT = {
    "samples": 20,
    "exact": 0.75,
    "wer": 0.5,
    "cer": 0.125,
    "cider": 3.25,
    "chance": {"exact": 0.1},
    "shuffled": {"exact": 0.05, "wer": 0.9, "cer": 0.8, "cider": 0.5},
    "gain": {"exact": 0.7, "wer": 0.4, "cer": 0.675, "cider": 2.75},
}
IMAGE = {
    "samples": 30,
    "copies": 0.2,
    "frechet": 1.5,
    "accuracy": 0.25,
    "chance": {"accuracy": 0.25},
    "shuffled": {"accuracy": 0.375},
    "gain": {"accuracy": -0.125},
    "unknown_label": 2,
}
VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = "</title><script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """Checks nesting while it reads, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} occurs twice"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(reported_run: Path) -> Page:
    """The report of a run on the tiny data."""
    return Page((reported_run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def results(reported_run: Path) -> dict[str, Any]:
    """The results of the same run."""
    return json.loads((reported_run / "results.json").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page: Page, reported_run: Path) -> None:
    path = reported_run / "report.html"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    assert not re.search(r"https?:|@import|//\w", re.sub(r"base64,[\w+/=]+", "", text))
    links = [a.get(k, "") for _, a in page.tags for k in ("src", "href") if k in a]
    assert all(
        link.startswith(("data:image/png;base64,", "data:audio/mpeg;base64,", "#"))
        for link in links
    )
    assert {link[:10] for link in links} >= {"data:image", "data:audio"}


def test_the_page_can_be_read_by_every_reader(page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert max(ids.values()) == 1
    assert all(a["href"][1:] in ids for a in page.of("a"))
    assert all(a["aria-labelledby"] in ids for a in page.of("section"))
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == len(page.of("main")) == 1
    assert all(image["alt"] for image in page.of("img"))
    assert all("controls" in audio and audio["aria-label"] for audio in page.of("audio"))
    assert all(cell["scope"] in ("row", "col") for cell in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table"))
    labelled = [svg for svg in page.of("svg") if "aria-hidden" not in svg]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in labelled)
    assert any(a.get("lang") == "zh" for a in page.of("span"))
    text = " ".join(page.text)
    assert "✓ right" in text
    assert "✗ wrong" in text


def test_the_page_tells_what_the_run_was(page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    assert "training steps 3" in text
    assert "training time 0.2 min" in text
    assert "35.0 % of peak" in text
    assert "1.5 k tokens/s" in text
    assert "embedding_dim: 16" in text
    labels = [svg.get("aria-label", "") for svg in page.of("svg")]
    assert "loss: 3.5 at step 1, 2.5 at step 2, between 2.5 and 3.5" in labels
    assert any(label.startswith("masked/text: 2 at step 1") for label in labels)
    assert any("t-SNE map of" in label and "coloured by label" in label for label in labels)


@pytest.mark.usefixtures("nothing_made")
def test_results_that_are_there_are_used(
    run_dir: Path, results: dict[str, Any], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"{100 * results['retrieval']['image->text']['mAP']:.1f}" in page.text
    results["retrieval"]["image->text"]["mAP"] = 0.4321
    (run_dir / "results.json").write_text(json.dumps(results))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was evaluated again")

    monkeypatch.setattr(report, "evaluate", never)
    assert "43.2" in write_report(run_dir).read_text(encoding="utf-8")


@pytest.fixture
def nothing_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the time of generating examples."""
    monkeypatch.setattr(report, "make_examples", lambda *_, **__: [])


def _words(path: Path) -> str:
    """The visible text, one space between words; its page is well formed."""
    return " ".join(" ".join(Page(path.read_text(encoding="utf-8")).text).split())


def test_what_the_model_makes_is_shown(page: Page, results: dict[str, Any]) -> None:
    text = " ".join(" ".join(page.text).split())
    _, _, shown = text.partition("seed 0")
    # no row of the tiny data has a text in two languages
    ways = [way for way in NINE if way != "text → text"]
    assert [way for way in NINE if re.search(rf"{way} 6 made", shown)] == ways
    assert re.search(r"image → text 6 made, \d right", shown)
    made = [a for a in page.of("img") + page.of("audio") if "made from test-" in str(a)]
    # of each way six, and the first of them once more where one of each stands side by side
    assert len(made) == 6 * 6 + 6
    assert sum(item.get("class") == "make" for item in page.of("li")) == 8 * 6 + 8
    assert "One from each to each" in text
    assert "as no judges were given" in text
    assert "not judged" in text
    exact = [results["generation"]["directions"][f"image->text[{lang}]"] for lang in ("en", "zh")]
    mean = 100 * sum(found["exact"] for found in exact) / 2
    assert re.search(rf"image not judged {mean:.1f} [+−]\d+\.\d not judged text", text)
    for direction in results["generation"]["directions"]:
        assert direction.replace("->", " → ") in text


@pytest.mark.usefixtures("nothing_made")
def test_scores_of_what_is_made_are_shown(run_dir: Path, results: dict[str, Any]) -> None:
    judges = {"trained_on": "ab", "image": {"accuracy": 0.985, "samples": 16}}
    directions = {
        "image->text[en]": TEXT,
        "image->text[zh]": {**TEXT, "exact": 0.25},
        "image->image": IMAGE,
        "image+text->answer": {"samples": 4, "exact": 0.5},
    }
    results["generation"] = {"rows": 32, "judges": judges, "directions": directions}
    (run_dir / "results.json").write_text(json.dumps(results))
    text = _words(write_report(run_dir))
    assert "image 25.0 −12.5 50.0 +70.0 – text – – –" in text
    assert "98.5 % (image) right" in text
    assert "image 98.5 % of 16 right." in text
    assert "from a picture and a question in answer text 50.0" in text
    assert "image → text[en] 75.0 5.0 10.0 70.0 50.0 12.5 3.25 20" in text
    assert "image → image 25.0 37.5 25.0 −12.5 1.50 20.0 30 (2 not judged)" in text
    assert "a cell is their mean" in text


@pytest.mark.usefixtures("nothing_made")
def test_parts_by_a_number_are_drawn(run_dir: Path, results: dict[str, Any]) -> None:
    by = [
        {"values": [1], "samples": 4, "right": 0.75},
        {"values": [2], "samples": 4, "right": 0.5},
    ]
    directions = {"image->text[en]": {**TEXT, "by": by}, "image->image": IMAGE}
    results["generation"] = {
        "rows": 8,
        "seed": 0,
        "by": ["figures"],
        "judges": None,
        "directions": directions,
    }
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "How right it is on parts of the data" in page.text
    drawn = [svg["aria-label"] for svg in page.of("svg") if "aria-label" in svg]
    assert "image->text[en] by figures: 75.0 % at 1, 50.0 % at 2" in drawn


def test_results_without_generation_have_a_page(run_dir: Path, results: dict[str, Any]) -> None:
    del results["generation"]
    (run_dir / "results.json").write_text(json.dumps(results))
    text = _words(write_report(run_dir))
    assert "hold no scores of what it makes" in text
    assert "text → image 6 made" in text
    assert "CIDEr" not in text


@pytest.mark.usefixtures("nothing_made")
def test_judges_are_passed_on_unless_they_have_judged(
    run_dir: Path, results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = tmp_path / "judges"
    Judges(JudgesConfig(labels=("blue", "red"), manifest="ab")).save(judges)
    results["generation"]["judges"] = {"trained_on": "ab"}
    given: list[Any] = []

    def measured(*_: Any, **options: Any) -> dict[str, Any]:
        given.append(options["judges"])
        return results

    monkeypatch.setattr(report, "evaluate", measured)
    assert "The judges know none of these labels" in _words(write_report(run_dir, judges=judges))
    assert given == [judges]
    write_report(run_dir, judges=judges)  # what was written has their verdicts
    assert given == [judges]
    path = run_dir / "results.json"
    results["generation"]["judges"] = {"trained_on": "other"}
    path.write_text(json.dumps(results))
    before = path.read_bytes()
    write_report(run_dir, judges=judges)
    assert given == [judges, judges]
    assert path.read_bytes() == before
    with pytest.raises(StorageError, match=r"nowhere holds no judges"):
        write_report(run_dir, judges=tmp_path / "nowhere")


@pytest.mark.usefixtures("nothing_made")
def test_losses_and_codebooks_have_their_headings(run_dir: Path, results: dict[str, Any]) -> None:
    (run_dir / "results.json").write_text(json.dumps(results))
    losses = ("target_vision", "quantised_speech", "matching_tuples", "causal_text", "length")
    line = {"step": 1, **dict.fromkeys(losses, 1.5), "grad_norm": 2.0, "grad_norm/text": 1.0}
    line |= {"padding": 0.0}
    (run_dir / "metrics.jsonl").write_text(json.dumps(line))
    folder = run_dir / "tokenizers" / "vision_tokenizer"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 9.0, "usage": 0.25, "perplexity": 3.5}\n'
    )
    text = _words(write_report(run_dir))
    _, _, training = text.partition("On the right: the last value.")
    headings = re.findall(r"Losses|Optimisation|Speed|Other|Tokenizers|Grad_norm", training)
    assert headings == ["Losses", "Optimisation", "Speed", "Tokenizers"]
    figures = re.findall(r"tokenizers/vision (\w+) ([\d.]+)", training)
    assert figures == [("usage", "0.25"), ("perplexity", "3.5")]


@pytest.mark.usefixtures("nothing_made")
def test_results_of_another_manifest_are_neither_used_nor_overwritten(
    run_dir: Path, results: dict[str, Any], tmp_path: Path
) -> None:
    (run_dir / "results.json").write_text(json.dumps(results))
    before = (run_dir / "results.json").read_bytes()
    other = write_tiny_manifest(tmp_path / "other", rows=8, name="other")
    text = write_report(run_dir, other).read_text(encoding="utf-8")
    assert f"Measured on 8 rows of {other}" in text
    assert (run_dir / "results.json").read_bytes() == before


def test_hostile_manifests_stay_text(run_dir: Path, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path / "bad", rows=8, name="bad", complete=True)
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line |= {"id": line["id"] + HOSTILE, "text": HOSTILE[:40], "label": line["label"] + HOSTILE}
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 4, HOSTILE: 1.0}) + "\n")
    page = Page(write_report(run_dir, manifest).read_text(encoding="utf-8"))
    assert page.of("script") == []
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert all(image["src"].startswith("data:") for image in page.of("img"))
    assert HOSTILE[:30] in "".join(page.text)
    assert "49" not in "".join(t for t in page.text if "script" in t)
    policy = next(a["content"] for a in page.of("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:")


@pytest.mark.usefixtures("nothing_made")
def test_many_labels_are_told_by_their_commonest_mistakes(
    run_dir: Path, results: dict[str, Any]
) -> None:
    labels = [f"kind {i}" for i in range(30)]
    matrix = [[9 if i == j else 0 for j in range(30)] for i in range(30)]
    matrix[3][4] = 5
    results["zero_shot"]["image->text[en]"]["confusion"] = {"labels": labels, "matrix": matrix}
    (run_dir / "results.json").write_text(json.dumps(results))
    text = " ".join(Page(write_report(run_dir).read_text(encoding="utf-8")).text)
    assert "the commonest mistakes among 30 labels" in text
    assert re.search(r"kind 3\s+kind 4\s+5\s", text)


def test_a_run_without_labels_speech_and_metrics_has_a_page(run_dir: Path, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path / "plain", rows=8, name="plain", complete=True)
    kept = [
        json.dumps({k: v for k, v in json.loads(line).items() if k in ("id", "image", "text")})
        for line in manifest.read_text(encoding="utf-8").splitlines()
    ]
    manifest.write_text("\n".join(kept), encoding="utf-8")
    (run_dir / "metrics.jsonl").write_text("")
    page = Page(write_report(run_dir, manifest).read_text(encoding="utf-8"))
    assert all(audio["aria-label"].startswith("recording made from") for audio in page.of("audio"))
    anchors = [a["id"] for a in page.of("h2")]
    assert anchors == ["results", "examples", "makes", "map", "scores", "configuration"]


def test_what_is_missing_is_said_before_anything_is_computed(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"it has no config.yaml"):
        write_report(tmp_path)
    with pytest.raises(DataError, match=r"nowhere.jsonl cannot be read"):
        write_report(run_dir, "nowhere.jsonl")
    (run_dir / "metrics.jsonl").unlink()
    with pytest.raises(StorageError, match=r"it has no metrics.jsonl"):
        write_report(run_dir)


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_a_missing_package_names_the_extra(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    for module in ("trimodal.evaluation.figures", "trimodal.evaluation.projection"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install 'trimodal\[train\]'"):
        write_report(run_dir)
