"""The files of the page: how they are answered, and that they load nothing from elsewhere."""

import json
import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from trimodal_serving.errors import ServingError
from trimodal_serving.playground.files import PAGE, TYPES, page_file

ASSETS = Path(str(files("trimodal_serving.playground") / "assets"))
NAMES = sorted(path.name for path in ASSETS.iterdir())
SCRIPTS = sorted(ASSETS.glob("*.js"))


def text_of(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_answered_as_what_it_is(name: str) -> None:
    reply = page_file(name, "")
    assert reply.body == (ASSETS / name).read_bytes()
    assert reply.media_type == TYPES[name[name.rfind(".") :]]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "'unsafe" not in reply.headers["content-security-policy"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_what_the_browser_has_is_not_sent_again(form: str) -> None:
    tag = page_file(PAGE, "").headers["etag"]
    again = page_file(PAGE, form.format(tag))
    assert (again.status, again.body) == (304, b"")
    assert page_file(PAGE, '"other"').status == 200


@pytest.mark.parametrize("name", ["", "nothing.js", "../files.py", "assets", "__init__.py"])
def test_nothing_else_is_answered(name: str) -> None:
    with pytest.raises(ServingError) as caught:
        page_file(name, "")
    assert caught.value.status == 404


def test_the_server_answers_the_page_and_its_parts(base_url: str) -> None:
    page = httpx.get(base_url)
    assert page.status_code == 200
    assert page.headers["content-type"] == TYPES[".html"]
    links = re.findall(r'(?:href|src)="(playground/[^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert httpx.get(f"{base_url}/{link}").status_code == 200
    again = httpx.get(base_url, headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{base_url}/playground/nothing.js").status_code == 404


def test_the_page_holds_no_script_no_style_and_no_address() -> None:
    page = text_of(PAGE)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    for name in NAMES:
        addresses = re.findall(r"https?://[^\s\"']+", text_of(name))
        assert addresses == (["http://www.w3.org/2000/svg"] if name.endswith(".svg") else [])


def test_every_word_is_there_in_both_languages() -> None:
    """And no word is there that the page does not use."""
    used = set(re.findall(r'data-t(?:-label|-placeholder)?="(\w+)"', text_of(PAGE)))
    program = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    entry = re.compile(r'(\w+): \[\s*("(?:[^"\\]|\\.)*"),\s*("(?:[^"\\]|\\.)*"),?\s*\]')
    table = text_of("words.js")
    words = {key: (json.loads(en), json.loads(zh)) for key, en, zh in entry.findall(table)}
    rest = entry.sub("", program)
    used |= {word for word in words if re.search(rf'"{word}"', rest)}
    used |= {"text", "image", "audio", "fused", "speech"}  # by what the server calls them
    assert used == set(words)
    for english, chinese in words.values():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese))
        assert re.search(r"[\u4e00-\u9fff]", chinese)


def test_every_element_that_the_scripts_name_is_in_the_page() -> None:
    made = {"keep"}
    for path in SCRIPTS:
        named = set(re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8")))
        assert {name for name in named - made if f'id="{name}"' not in text_of(PAGE)} == set()
