import json
import logging

import pytest

from trimodal_serving.logs import JsonLines


def line(message: str, error: BaseException | None = None) -> dict[str, object]:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, __file__, 1, message, None, info)
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_record_is_one_line_whatever_it_holds() -> None:
    tree = line('a "quote"\nand a line \x1b[31m')
    assert tree["message"] == 'a "quote"\nand a line \x1b[31m'
    assert tree["level"] == "error"
    assert "errors" not in tree


def failed() -> None:
    try:
        int("secret of a client")
    except ValueError as error:
        raise RuntimeError("secret of a library") from error


def test_of_exceptions_only_types_and_places_are_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        failed()
    tree = line("request r1 failed", caught.value)
    errors = tree["errors"]
    assert isinstance(errors, list)
    assert [error["type"] for error in errors] == ["RuntimeError", "ValueError"]
    assert "test_of_exceptions" in errors[0]["at"][0]
    assert "secret" not in json.dumps(tree)
