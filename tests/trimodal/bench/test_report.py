from datetime import date

from trimodal.bench.report import Machine, gpu_report
from trimodal.bench.timing import compare

MACHINE = Machine("A100", 80.0, {"torch": "2.11.0"}, date(2026, 1, 2))


def test_a_page_has_every_row_and_names_those_that_miss() -> None:
    rows = [compare("won", 1, 3, 2.0), compare("lost", 2, 3, 2.0), compare("free", 2, 1, None)]
    curves = {"auto": [3.0, 2.0, 1.0], "reference": [3.0, 2.0, 1.25]}
    page = gpu_report(MACHINE, "7 passed in 3 s", rows, curves)
    assert page.startswith("# Kernels on one A100, 2026-01-02\n\n80 GiB; torch 2.11.0.")
    assert "- Tests: 7 passed in 3 s\n- Gates: 1 of 2 reached" in page
    assert "**Missed**: lost." in page
    assert "| won | 1 | 3 | ms | 3.00 | 2.00 |" in page
    assert "| lost | 2 | 3 | ms | 1.50 | 2.00, **missed** |" in page
    assert "| free | 2 | 1 | ms | 0.50 |  |" in page
    assert page.endswith("| 1 | 3.00000 | 3.00000 |\n| 3 | 1.00000 | 1.25000 |\n")


def test_a_page_without_misses_does_not_speak_of_them() -> None:
    assert "Missed" not in gpu_report(MACHINE, "", [compare("won", 1, 3, 2.0)], {"auto": [1.0]})
