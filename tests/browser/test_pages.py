"""The pages in a real browser: no complaint, no request, nothing wider than a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from chromium import Chromium, executable
from report_directories import grid, write_run, write_study, write_sweep

from optexp.report.html import write

pytestmark = pytest.mark.skipif(executable() is None, reason="there is no Chromium: apt-get install chromium")

KINDS = ("run", "diverged", "sweep", "wide", "study")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    members = grid(seeds=3, lost={1.0: "diverged"})
    members[4]["status"] = "failed"
    swept = ["optimizer.lr", "optimizer.weight_decay"]
    wide = [{"optimizer.lr": 10.0 ** (i - 9), "optimizer.weight_decay": float(j)} for i in range(9) for j in range(2)]
    paths = {
        "run": write_run(folder / "a-name-without-any-blank-that-is-longer-than-a-phone-is-wide-0123456789"),
        "diverged": write_run(folder / "diverged", "diverged"),
        "sweep": write_sweep(folder / "sweep", members, [*swept, "seed"]),
        "wide": write_sweep(folder / "wide", wide, swept),
        "study": write_study(folder / "study"),
    }
    assert tuple(paths) == KINDS
    return {kind: write(path) for kind, path in paths.items()}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_and_fits(browser: Chromium, pages: dict[str, Path], kind: str, width: int) -> None:
    browser.open(pages[kind], width)
    assert browser.complaints == []
    addresses = [address for address in browser.requests if not address.startswith("data:")]
    assert addresses == [pages[kind].resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = """[...document.querySelectorAll("main > *, figure, h1, p, li, pre.command, dd")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(too_wide) == []


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_there_and_their_text_can_be_read(browser: Chromium, pages: dict[str, Path], kind: str) -> None:
    for width in (1280, 390):
        browser.open(pages[kind], width)
        sizes = browser.evaluate(
            """[...document.querySelectorAll("figure svg")].map(svg => {
                const box = svg.getBoundingClientRect();
                const texts = [...svg.querySelectorAll("text")].map(t => t.getBoundingClientRect().height);
                return [box.width, box.height, texts.length, Math.min(...texts)];
            })"""
        )
        assert len(sizes) >= 4
        for wide, high, texts, smallest in sizes:
            assert wide >= 300
            assert high >= 80
            assert texts >= 3
            assert smallest >= 6.5


def test_the_page_follows_the_reader_s_colours(browser: Chromium, pages: dict[str, Path]) -> None:
    colours = {}
    for dark in (False, True):
        browser.open(pages["sweep"], dark=dark)
        colours[dark] = browser.evaluate(
            """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                getComputedStyle(document.querySelector("figure svg text")).fill]"""
        )
    assert colours[False] == ["rgb(255, 255, 255)", "rgb(34, 34, 34)", "rgb(34, 34, 34)"]
    assert colours[True] == ["rgb(23, 25, 29)", "rgb(232, 230, 227)", "rgb(232, 230, 227)"]


def test_nothing_is_painted_behind_a_figure(browser: Chromium, pages: dict[str, Path]) -> None:
    """White behind the curves would be a hole in a dark page."""
    browser.open(pages["study"], dark=True)
    white = """[...document.querySelectorAll("figure svg path")]
        .filter(path => getComputedStyle(path).fill === "rgb(255, 255, 255)").length"""
    assert browser.evaluate(white) == 0


def test_a_click_on_a_heading_sorts_the_table(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["sweep"])
    table = 'document.querySelector("#table + .scroll table")'
    column = f"""[...{table}.tHead.rows[0].cells].findIndex(cell => cell.textContent === "val/loss")"""
    values = f"""[...{table}.tBodies[0].rows].map(row => row.cells[{column}].dataset.value)"""
    before = browser.evaluate(values)
    for down in (False, True):
        browser.evaluate(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').click()")
        after = browser.evaluate(values)
        numbers = [float(value) for value in after if value]
        assert numbers == sorted(numbers, reverse=down)
        assert len(numbers) > 10
        assert after[len(numbers) :] == [""] * (len(after) - len(numbers))  # what has no value stays below
        assert sorted(after) == sorted(before)
    assert browser.complaints == []


def test_what_differs_never_needs_to_be_scrolled(browser: Chromium, tmp_path: Path) -> None:
    """Side by side where it fits, else counted: whatever the number of settings and the length of their names."""
    forms = set()
    for lrs, decays in product((2, 3, 5, 8), (1, 2)):
        members = [
            {"optimizer.lr": 1e-5 * (i + 1), "optimizer.weight_decay": 1.23e-4 * j, "seed": seed}
            for i, j, seed in product(range(lrs), range(decays), range(2))
        ]
        swept = ["optimizer.lr", "optimizer.weight_decay", "seed"]
        browser.open(write(write_sweep(tmp_path / f"{lrs} {decays}", members, swept)))
        box = 'document.querySelector("#config + .scroll")'
        assert browser.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), (lrs, decays)
        forms.add(browser.evaluate(f"{box}.firstChild.className"))
    assert forms == {"columns", "pairs"}


def test_a_table_that_scrolls_has_a_shadow_where_it_goes_on(browser: Chromium, pages: dict[str, Path]) -> None:
    """What is behind the edge is dark, and the cover that hides the shadow moves with the table."""
    browser.open(pages["sweep"], 390)
    box = 'document.querySelector("#table + .scroll")'
    assert browser.evaluate(f"{box}.scrollWidth > {box}.clientWidth")
    attachments = browser.evaluate(f"getComputedStyle({box}).backgroundAttachment")
    assert attachments == "local, local, scroll, scroll"
    assert browser.evaluate(f"getComputedStyle({box}).backgroundImage").count("linear-gradient") == 4


def test_a_page_can_be_printed(browser: Chromium, pages: dict[str, Path]) -> None:
    """On white paper, whatever the screen's colours are."""
    browser.open(pages["sweep"], dark=True)
    assert browser.pdf().startswith(b"%PDF-")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[feature])
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate('getComputedStyle(document.querySelector(".scroll")).overflowX') == "visible"
