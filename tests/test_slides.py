"""The slides: every deck opens without another host, shows its mathematics and figures, and fits its slide."""

import shutil
import sys

import pytest
from browser import served, watched
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import slides

DECKS = sorted(path.stem for path in slides.DECKS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    static = tmp_path_factory.mktemp("slides") / "_static"
    shutil.copytree(ROOT / "site_static", static)
    shutil.copytree(ROOT / "rvlib/explore/web", static / "explore")
    slides.write(static / "slides")
    with served(static.parent) as address:
        yield f"{address}/_static/slides"


@pytest.mark.parametrize("name", DECKS)
def test_every_slide_fits_and_lives(name, site, browser):
    with watched(browser, viewport={"width": 1280, "height": 800}) as page:
        page.goto(f"{site}/{name}.html")
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        page.wait_for_function("[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container'))")
        for index in range(page.evaluate("Reveal.getTotalSlides()")):
            page.evaluate(f"Reveal.slide({index})")
            page.wait_for_function(
                "() => { const slide = Reveal.getCurrentSlide();"
                "return !slide.querySelector('figure[data-explorable]:not([data-mounted])')"
                " && slide.scrollHeight <= 800 && slide.scrollWidth <= 1280; }",
                timeout=10_000,
            )
        assert page.locator("mjx-merror").count() == 0


def test_a_slide_has_mathematics_notes_and_figures():
    page = slides.deck("# A title\n\nLet $a<b$.\n\n::: explorable Dial seed=2\n\nNote: Say it.\n\n---\n\n## Next\n")
    assert page.count("<section>") == 2 and "<title>A title</title>" in page
    assert r"\(a&lt;b\)" in page and '<aside class="notes"><p>Say it.</p>' in page
    assert 'data-explorable="dial"' in page


def test_a_figure_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="must name a figure"):
        slides.deck("::: explorable Nothing\n")
