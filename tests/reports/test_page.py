"""The page of a run: its numbers, its silence towards the network, runs that are not finished."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from segexp.metrics.scores import case_means, summary
from segexp.reports.page import number, write_run_page
from segexp.runs import Run

MakeRun = Callable[..., Run]


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def test_page_shows_the_numbers_of_the_scores(make_run: MakeRun) -> None:
    run = make_run()
    file = write_run_page(run)
    assert file == run.path / "report.html"
    text = text_of(file.read_text(encoding="utf-8"))
    values = summary(case_means(run.scores(), "dice")["value"])
    cells = " ".join(number(values[key]) for key in ("mean", "sd", "min", "max"))
    assert values["mean"] == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert f"fast {cells} 4 of 4" in text
    assert "fast, rotated 0.500 0.000 0.500 0.500 1 of 1" in text
    # grey matter: 0 in the first case, 1 in two, undefined in the last
    assert "grey matter 0.667 ± 0.471 3 of 4" in text
    for fact in (run.id, "Phantoms.", "segexp train seed=1", "1 min 15 s", "1.50 GB", "abc with changes", "torch 2.12"):
        assert fact in text
    assert text.count("test 0 fast") == 1


def test_page_fetches_nothing(make_run: MakeRun) -> None:
    page = write_run_page(make_run()).read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    # box plot, loss, validation Dice, learning rate, one overlay
    assert len(addresses) == 5 and all(address.startswith("data:image/") for address in addresses)


def test_text_is_escaped(make_run: MakeRun) -> None:
    page = write_run_page(make_run(command="train data.root='<b>&'")).read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page


def test_same_run_same_bytes(make_run: MakeRun) -> None:
    run = make_run()
    assert write_run_page(run).read_bytes() == write_run_page(run).read_bytes()


def test_real_data_carry_no_phantom_notice(make_run: MakeRun) -> None:
    assert "hantom" not in write_run_page(make_run(phantom=False)).read_text(encoding="utf-8")


def test_a_failed_run_has_a_page(make_run: MakeRun) -> None:
    run = make_run(empty=True, status="failed", error="DataError: T1.nii.gz is cut short", resources={})
    text = text_of(write_run_page(run).read_text(encoding="utf-8"))
    assert "T1.nii.gz is cut short" in text and "Test scores" not in text and "Pictures" not in text


def test_a_run_that_has_just_started_has_a_page(make_run: MakeRun) -> None:
    text = text_of(write_run_page(make_run(empty=True, status="running")).read_text(encoding="utf-8"))
    assert "No scores yet." in text


def test_template_is_in_the_package() -> None:
    import segexp.reports

    assert (Path(segexp.reports.__file__).parent / "templates" / "run.html").is_file()


def test_png_size_grows_with_rows(make_run: MakeRun) -> None:
    content = (make_run().path / "figures" / "test_0_fast.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 500 and height > 500
