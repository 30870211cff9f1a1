"""The page in a real Chromium without a window: by keyboard, in both languages, light and dark."""

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from trimodal.models import TrimodalModel
from trimodal_serving.engine import Engine

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, see `make browser`")
OPTIONS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE_MS = 20_000
FILES = {"picture.png": "image/png", "tone.wav": "audio/wav"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page of a server; whatever goes wrong in it fails the test."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def note(fault: str) -> None:
        faults.extend(filter(None, [fault]))

    def visit(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda said: note(said.text if "Policy" in said.text else ""))
        own = (url, "data:", "blob:")
        page.on("request", lambda sent: note("" if sent.url.startswith(own) else sent.url))
        page.goto(url)
        expect(page.locator("html[data-ready=true]")).to_be_attached()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(visit: Callable[..., Page], base_url: str) -> Page:
    return visit(base_url)


def add_text(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")
    expect(page.locator("#text")).to_have_value("")


def add_file(page: Page, name: str, data: bytes, kind: str) -> None:
    page.locator("#files").set_input_files({"name": name, "mimeType": kind, "buffer": data})


def cards(page: Page) -> Any:
    return page.locator("#cards > li")


def table(page: Page) -> list[list[float]]:
    rows = page.locator("#matrix-scroll tbody tr").all()
    return [[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows]


def chat(base_url: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(parts)}]
    tree = {"model": "tiny", "messages": messages, "seed": 3, **fields}
    answer = httpx.post(f"{base_url}/v1/chat/completions", json=tree, timeout=60).json()
    return answer["choices"][0]["message"]


def test_everything_is_compared_with_everything(
    page: Page, base_url: str, png: bytes, wav: bytes
) -> None:
    add_text(page, "a red circle")
    add_text(page, "红色的圆形")
    for name, data in (("picture.png", png), ("tone.wav", wav)):
        add_file(page, name, data, FILES[name])
    expect(cards(page)).to_have_count(4)
    expect(page.locator("#cards img")).to_have_count(1)
    expect(page.locator("#cards audio")).to_have_count(1)
    inputs = [
        {"text": "a red circle"},
        {"text": "红色的圆形"},
        {"image": base64.b64encode(png).decode()},
        {"audio": base64.b64encode(wav).decode()},
    ]
    tree = {"model": "tiny", "queries": inputs, "documents": inputs}
    answer = httpx.post(f"{base_url}/v1/similarity", json=tree, timeout=60).json()
    np.testing.assert_allclose(table(page), answer["similarities"], atol=6e-4)


def test_by_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#text")).to_be_focused()
    for text in ("one", "two"):
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        expect(page.locator("#items-status")).to_contain_text(f"{text} is added")
    expect(cards(page)).to_have_count(2)
    page.get_by_role("checkbox", name="use 2 two").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox", name="use 2 two")).to_be_focused()
    expect(page.get_by_role("checkbox", name="use 1 one")).not_to_be_checked()
    page.get_by_role("button", name="Remove 1 one").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove 2 two")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#items-status")).to_have_text("2 two is removed.")
    expect(cards(page)).to_have_count(0)


def test_a_picture_is_dropped_and_pasted(page: Page, png: bytes) -> None:
    for number, kind in enumerate(("drop", "paste"), 1):
        page.evaluate(
            """([kind, data]) => {
              const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
              const fields = { bubbles: true, dataTransfer: transfer, clipboardData: transfer };
              const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
              document.body.dispatchEvent(new Kind(kind, fields));
            }""",
            [kind, base64.b64encode(png).decode()],
        )
        expect(cards(page)).to_have_count(number)
    assert table(page) == [[1.0, 1.0], [1.0, 1.0]]


def test_a_sound_is_recorded(page: Page) -> None:
    page.get_by_role("button", name="Record a sound").click()
    expect(page.get_by_role("button", name="Stop recording")).to_be_visible()
    page.wait_for_timeout(400)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#cards audio")).to_have_count(1)
    assert str(page.locator("#cards audio").get_attribute("src")).startswith("data:audio/wav;")


def test_what_the_server_does_not_read_the_browser_turns_into_it(page: Page) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), "red").save(stream, "GIF")
    add_file(page, "red.gif", stream.getvalue(), "image/gif")
    expect(page.locator("#cards img")).to_have_count(1)
    assert str(page.locator("#cards img").get_attribute("src")).startswith("data:image/png;")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("notes.pdf", "application/pdf", "notes.pdf is neither a picture nor a sound."),
        ("broken.gif", "image/gif", "broken.gif is no picture that this browser"),
        ("broken.m4a", "audio/mp4", "broken.m4a is no sound that this browser"),
        ("broken.png", "image/png", "image"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(page: Page, name: str, kind: str, words: str) -> None:
    add_file(page, name, b"no such thing", kind)
    expect(page.locator("#items-error")).to_contain_text(words)
    expect(cards(page)).to_have_count(0)


def test_a_text_is_generated_as_through_the_api(page: Page, base_url: str, png: bytes) -> None:
    add_file(page, "picture.png", png, "image/png")
    page.locator("#make-seed").fill("3")
    page.locator("#make").click()
    expect(page.locator("#make-status")).to_contain_text("Done in")
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    message = chat(base_url, {"type": "image_url", "image_url": {"url": url}})
    written = str(page.locator("#made p").first.text_content())
    assert written.strip() == message["content"].strip() != ""


WATCHED = """() => {
  const of = (id) => document.getElementById(id);
  window.seen = [];
  const look = () => {
    const image = of("made").querySelector("img");
    const share = of("make-progress").getAttribute("value");
    const sounds = of("made").querySelectorAll("audio").length;
    const status = of("make-status").textContent;
    window.seen.push([share, status, image?.alt ?? "", image?.src ?? "", sounds]);
  };
  new MutationObserver(look).observe(of("made").parentElement, { subtree: true, childList: true });
}"""


def test_a_picture_is_generated_and_kept(page: Page, base_url: str) -> None:
    add_text(page, "a red circle")
    page.get_by_role("radio", name="a picture").check()
    page.locator("#make-seed").fill("3")
    page.evaluate(WATCHED)
    page.locator("#make").click()
    expect(page.locator("#make-status")).to_contain_text("Done in")
    seen = page.evaluate("window.seen")
    parts = [(value, source) for value, _, name, source, _ in seen if name == "The picture so far"]
    assert list(dict(parts)) == ["0.25", "0.5", "0.75"], "how much of it is done is shown"
    assert all(source.startswith("data:image/png;base64,") for _, source in parts)
    assert "Part 3 of 4 is drawn." in {said for _, said, *_ in seen}, "and is said"
    part = {"type": "text", "text": "a red circle"}
    message = chat(base_url, part, modalities=["text", "image"])
    assert (
        page.locator("#made img").get_attribute("src") == message["images"][0]["image_url"]["url"]
    )
    page.get_by_role("button", name="Add to the items").click()
    expect(page.locator("#cards img")).to_have_count(1)
    assert len(table(page)) == 2


def chat_speech(base_url: str, part: dict[str, Any], lang: str) -> tuple[str, str]:
    """The address of the sound, and what the model hears in it."""
    audio = {"voice": "default", "format": "wav"}
    options = {"modalities": ["text", "audio"], "audio": audio, "trimodal": {"lang": lang}}
    made = chat(base_url, part, **options)["audio"]
    return f"data:audio/wav;base64,{made['data']}", made["transcript"]


@pytest.mark.parametrize(
    ("language", "so_far", "said"),
    [
        ("en", "The speech so far, 0.6 s", "Part 3 of 4 is spoken."),
        ("zh", "尚未说完的语音，0.6 秒", "已说完第 3 部分，共 4 部分。"),
    ],
)
def test_speech_is_generated_in_a_language_and_shown_on_its_way(
    page: Page, base_url: str, voiced: TrimodalModel, language: str, so_far: str, said: str
) -> None:
    page.locator("#language").select_option(language)
    add_text(page, "a red circle")
    page.locator("[name=target][value=speech]").check()
    page.locator("#make-lang").select_option("zh")
    page.locator("#make-seed").fill("3")
    page.evaluate(WATCHED)
    page.locator("#make").click()
    expect(page.locator("#made audio")).to_be_visible()
    part = {"type": "text", "text": "a red circle"}
    source, transcript = chat_speech(base_url, part, "zh")
    assert page.locator("#made audio").get_attribute("src") == source
    assert str(page.locator("#made p").text_content()).strip() == transcript.strip() != ""
    seen = page.evaluate("window.seen")
    before = [one for one in seen if not one[-1]]
    waves = {value: wave for value, _, name, wave, _ in before if name == so_far}
    assert list(waves) == ["0.25", "0.5", "0.75"], "how much of it is done is shown"
    assert len(set(waves.values())) == 3, "and what it will sound like"
    assert said in {words for _, words, *_ in before}, "and is said"


def test_speech_of_a_picture_is_generated(page: Page, base_url: str, png: bytes) -> None:
    add_file(page, "picture.png", png, "image/png")
    page.get_by_role("radio", name="speech").check()
    page.locator("#make-lang").select_option("en")
    page.locator("#make-seed").fill("3")
    page.locator("#make").click()
    expect(page.locator("#made audio")).to_be_visible()
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    source, _ = chat_speech(base_url, {"type": "image_url", "image_url": {"url": url}}, "en")
    assert page.locator("#made audio").get_attribute("src") == source


def test_generation_shows_progress_and_is_cancelled(page: Page) -> None:
    expect(page.locator("#make-from")).to_contain_text("Tick the items")
    add_text(page, "a red circle")
    page.route("**/v1/chat/completions", lambda _: None)  # never answered
    page.locator("#make").click()
    expect(page.locator("#make-progress")).to_be_visible()
    expect(page.locator("#make-time")).to_have_text(re.compile(r"\d\.\d s"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#make-status")).to_have_text("Cancelled.")
    expect(page.locator("#make-progress")).to_be_hidden()


def test_an_index_is_made_filled_and_searched(page: Page, png: bytes) -> None:
    add_text(page, "a red circle")
    add_file(page, "picture.png", png, "image/png")
    expect(cards(page)).to_have_count(2)
    page.locator("#index-name").fill("from_a_browser")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#index-status")).to_have_text("The index from_a_browser is made.")
    page.get_by_role("button", name="Put all items into it").click()
    expect(page.locator("#index-status")).to_contain_text("2 items are in the index")
    page.locator("#search-by").select_option("2")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#found > li")).to_have_count(2)
    expect(page.locator("#found > li").first).to_contain_text("cosine 1.000")
    expect(page.locator("#found img")).to_have_count(1)
    page.locator("#index-name").fill("from_a_browser")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#index-error")).to_have_text("there is an index of this name")


def test_what_the_server_does_not_have_is_said(
    visit: Callable[..., Page], serve: Callable[..., Any], model: TrimodalModel
) -> None:
    with serve(Engine(lambda: model)) as server:
        page = visit(server.wait_until_ready().url)
        expect(page.locator("#index-none")).to_contain_text("--indexes")
        expect(page.locator("#index")).to_be_hidden()
        add_text(page, "a red circle")
    page.locator("#text").fill("another")
    page.locator("#text").press("Enter")
    expect(page.locator("#items-error")).to_have_text("The server cannot be reached.")
    expect(page.locator("#text")).to_have_value("another")


def test_one_of_several_models_is_chosen(
    visit: Callable[..., Page], serve: Callable[..., Any], model: TrimodalModel, turned: Any
) -> None:
    with serve(Engine(lambda: model), services={"other": Engine(lambda: turned)}) as server:
        page = visit(server.wait_until_ready().url)
        add_text(page, "a red circle")
        expect(page.locator("#model")).to_contain_text("Model tiny")
        page.get_by_label("Model").select_option("other")
        expect(page.locator("#model")).to_contain_text("Model other")
        add_text(page, "a red circle")
        assert table(page) == [[1, 1], [1, 1]]


def test_one_that_answers_no_questions_describes(
    visit: Callable[..., Page],
    serve: Callable[..., Any],
    model: TrimodalModel,
    png: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model.config, "answers", False)
    with serve(Engine(lambda: model)) as server:
        page = visit(server.wait_until_ready().url)
        add_text(page, "a red circle")
        add_file(page, "picture.png", png, "image/png")
        for one in cards(page).get_by_role("checkbox").all():
            one.check()
        page.locator("#make").click()
        expect(page.locator("#make-status")).to_contain_text("Done in")
        expect(page.locator("#make-error")).to_be_empty()


def test_in_chinese_and_it_is_remembered(page: Page) -> None:
    add_text(page, "红色的圆形")
    page.locator("#language").select_option("zh")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("#items-title")).to_have_text("条目")
    expect(page.get_by_role("button", name="移除1 红色的圆形")).to_be_visible()
    expect(page.locator("#model")).to_contain_text("可生成")
    expect(page.locator("#model-switch")).to_be_hidden()
    page.reload()
    expect(page.locator("html[data-ready=true]")).to_have_attribute("lang", "zh-CN")


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(
    visit: Callable[..., Page], base_url: str, png: bytes, wav: bytes, locale: str, scheme: str
) -> None:
    """The rules of WCAG that axe can check: names, roles, labels and contrast."""
    page = visit(
        base_url, locale=locale, color_scheme=scheme, viewport={"width": 390, "height": 800}
    )
    add_text(page, "a red circle")
    for name, data in (("picture.png", png), ("tone.wav", wav)):
        add_file(page, name, data, FILES[name])
    expect(cards(page)).to_have_count(3)
    page.locator("#make").click()
    expect(page.locator("#keep, #made p").first).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator("html")).to_have_css("color-scheme", "light dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(16, 20, 28)") == (scheme == "dark")
    page.locator("#theme").select_option("light" if scheme == "dark" else "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
