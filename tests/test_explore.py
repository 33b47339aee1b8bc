"""The explorables in a real browser: every slider, the address, small, dark and printed pages; and their numbers
against Python's.
"""

import collections
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest
import traitlets
from browser import served, watched

from rvlib import paper, teacher_study
from rvlib.correlations import correlations, properties
from rvlib.explore import (
    Calculator,
    Curves,
    Dial,
    Explorable,
    Landscape,
    Plateau,
    Predictors,
    Race,
    Remedies,
    calculator,
    draw,
    predictors,
    tables,
)
from rvlib.explore._explorable import PICTURES, WEB
from rvlib.explore.problem import problem, teacher
from rvlib.explore.remedies import two_prompts
from rvlib.lm.experiments import cost
from rvlib.metrics import harm_aware_accuracy, ranking_accuracy, reward_covariance, reward_variance
from rvlib.plots.figure import PALETTE
from rvlib.tabular import bounds, geometry, gradient_flow, softmax, time_to_gain
from rvlib.tabular import remedies as treatments

KINDS = Explorable.__subclasses__()
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>explorables</title></head><body>{figures}
<script type="module" src="_static/explore/mount.mjs"></script></body></html>"""
SUB_PATH = "some/sub/path"
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Pages with explorables, as the book has them but without the book, served from a sub-path: `site("curves")` is an
    address.
    """
    root = tmp_path_factory.mktemp("site")
    folder = root / SUB_PATH
    shutil.copytree(WEB, folder / "_static/explore")
    pages = {kind.name: [kind()] for kind in KINDS}
    pages["several"] = [Curves(variance=0.2), Dial(), Curves(variance=0.001)]
    pages["far"] = ["<div style='height: 6000px'></div>", Dial()]
    for name, parts in pages.items():
        figures = "".join(part if isinstance(part, str) else part.mount for part in parts)
        (folder / f"{name}.html").write_text(PAGE.format(figures=figures), encoding="utf-8")
    with served(root) as address:
        yield lambda page: f"{address}/{SUB_PATH}/{page}"


def settle(page):
    """Until what was asked for is drawn: two frames."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function("!document.querySelector('.rv-svg[aria-busy=true]')")  # all that a worker makes


def open_page(page, address, unfold=True):
    page.goto("about:blank")  # so that an address that differs in its fragment alone is opened afresh
    page.goto(address)
    page.wait_for_selector(".rv-svg[aria-label] text")
    if unfold:
        page.evaluate("document.querySelectorAll('.rv-more').forEach(fold => (fold.open = true))")
    settle(page)


def drawn(page, nth=0):
    """What a figure shows: the drawing and its readouts, not the sliders."""
    settle(page)
    return page.evaluate(
        "n => { const rv = document.querySelectorAll('.rv')[n]; return rv.querySelector('svg').innerHTML + "
        "rv.querySelector('.rv-readouts').innerText }",
        nth,
    )


def fragment(page):
    page.wait_for_timeout(700)  # the address is written once the sliders rest
    return page.evaluate("location.hash")


def turn(page, key, presses=1):
    """Move a control by keyboard alone: PageUp, or PageDown where it stands at its upper end."""
    control = page.locator(f"[data-key={key}]").first
    control.focus()
    kind, low, high = control.evaluate(
        "c => [c.type, Number(c.value) <= Number(c.min), Number(c.value) >= Number(c.max)]"
    )
    assert not (low and high)
    for _ in range(presses):
        keys = {"checkbox": "Space", "radio": "ArrowDown", "select-one": "ArrowDown"}
        page.keyboard.press(keys.get(kind, "PageDown" if high else "PageUp"))
    settle(page)


# ---- every control, by keyboard --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_changes_the_figure(browser, site, kind):
    with watched(browser) as page:
        # At the start of the race, before the bet, a KL penalty changes nothing yet.
        open_page(page, site(f"{kind.name}.html{'#race.time=60' if kind is Race else ''}"))
        for control in kind._controls:
            before, label = drawn(page), page.locator("svg[role=img]").get_attribute("aria-label")
            turn(page, control["key"])
            assert drawn(page) != before, control["key"]
            assert len(label) > 80
        page.click("text=Reset")
        drawn(page)


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_has_a_label_and_says_its_value(browser, site, kind):
    with watched(browser) as page:
        open_page(page, site(f"{kind.name}.html"))
        sliders = page.locator("input[type=range]")
        assert sliders.count() == sum(control["kind"] == "slider" for control in kind._controls)
        for i in range(sliders.count()):
            spoken = sliders.nth(i).evaluate(
                "s => [s.labels[0].innerText, s.getAttribute('aria-valuetext'), "
                "s.parentNode.querySelector('output').innerText]"
            )
            assert all(spoken) and spoken[1] == spoken[2]
        for control in page.locator("input:not([type=range])").all():
            assert control.evaluate("c => c.labels[0].innerText")
        for control in page.locator(".rv select").all():
            assert control.get_attribute("aria-label") and control.locator("option").count() > 1


def test_arrow_keys_move_by_one_step(browser, site):
    with watched(browser) as page:
        open_page(page, site("dial.html"))
        page.locator("[data-key=outputs]").focus()
        page.keyboard.press("ArrowRight")
        settle(page)
        assert page.locator("output").nth(4).inner_text() == str(Dial().outputs + 1)


# ---- the address -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_can_be_linked_to_and_reset(browser, site, kind):
    with watched(browser) as page:
        open_page(page, site(f"{kind.name}.html"))
        start = drawn(page)
        for control in kind._controls:
            turn(page, control["key"])
        link, moved = site(f"{kind.name}.html") + fragment(page), drawn(page)
        assert link.count(f"{kind.name}.") >= len(kind._controls)
        open_page(page, link)
        assert drawn(page) == moved
        turn(page, kind._controls[-1]["key"])
        assert drawn(page) != moved
        page.click("text=Reset")  # to the state of the link
        assert drawn(page) == moved
        page.click("text=Reset")  # and from there to the figure's own
        assert drawn(page) == start
        assert fragment(page) == ""


@pytest.mark.parametrize(
    "nonsense",
    [
        "accuracy=2",
        "accuracy=",
        "variance=NaN",
        "variance=-1",
        "variance=1e999",
        "outputs=3.5",
        "outputs=abc",
        "kl_coef=1e-9",
        "seed=%E0%A4%A",
        "log_time=maybe",
        "pins=x",
        "pins=variance:7",
        "pins=;;,:",
        "__proto__=1",
        "constructor=1",
        "nothing=1",
        "&&&=&.=&curves",
        "accuracy",
    ],
)
def test_nonsense_in_the_address_gives_the_initial_state(browser, site, nonsense):
    with watched(browser) as page:
        open_page(page, site("curves.html"))
        start = drawn(page)
        open_page(page, site(f"curves.html#curves.{nonsense}"))
        if nonsense == "pins=;;,:":  # separators alone: no pin says anything, so none differs from the initial setting
            page.click("text=Reset")
        assert drawn(page) == start


def test_an_anchor_stays_until_something_moves(browser, site):
    with watched(browser) as page:
        open_page(page, site("dial.html#a-section"))
        assert fragment(page) == "#a-section"
        turn(page, "accuracy")
        assert fragment(page).startswith("#dial.accuracy=")


def test_following_a_link_within_the_page_moves_the_sliders(browser, site):
    with watched(browser) as page:
        open_page(page, site("dial.html"))
        start = drawn(page)
        page.evaluate("location.hash = 'dial.accuracy=0.4'")
        page.wait_for_timeout(100)
        assert drawn(page) != start
        assert page.locator("output").first.inner_text() == "0.40"


def test_a_figure_has_a_link_to_the_module_that_computes_it(browser, site):
    with watched(browser, viewport={"width": 900, "height": 4000}) as page:
        open_page(page, site("several.html"))
        page.wait_for_function("document.querySelectorAll('figure[data-mounted]').length === 3")
        links = page.get_by_role("link", name="Code of this figure").all()
        names = ["curves", "dial", "curves"]
        assert [link.evaluate("e => e.href") for link in links] == [site(f"_static/explore/{n}.mjs") for n in names]


def test_several_explorables_on_a_page_keep_to_themselves(browser, site):
    with watched(browser, viewport={"width": 900, "height": 4000}) as page:
        open_page(page, site("several.html"))
        page.wait_for_function("document.querySelectorAll('.rv-svg text').length > 60")
        before = [drawn(page, i) for i in range(3)]
        assert before[0] != before[2]
        page.locator("[data-key=variance]").nth(2).focus()
        page.keyboard.press("PageUp")
        after = [drawn(page, i) for i in range(3)]
        assert [a == b for a, b in zip(after, before)] == [True, True, False]
        link = fragment(page)
        assert link.startswith("#curves-2.variance=")
        page.locator("[data-key=gain]").first.focus()
        page.keyboard.press("PageUp")
        both = fragment(page)
        assert "curves.gain=" in both and "curves-2.variance=" in both


def test_a_figure_comes_to_life_when_it_is_near(browser, site):
    with watched(browser) as page:
        page.goto(site("far.html"))
        page.wait_for_timeout(300)
        assert page.locator(".rv").count() == 0
        page.locator("figure").scroll_into_view_if_needed()
        page.wait_for_selector(".rv-svg text")


def test_a_link_to_a_state_shows_its_figure(browser, site):
    with watched(browser) as page:
        page.goto(site("far.html#dial.accuracy=0.5"))
        page.wait_for_selector(".rv-svg text")
        assert page.locator("figure").evaluate("f => f.getBoundingClientRect().top") < 700


# ---- pins ------------------------------------------------------------------------------------------------------------


def test_settings_can_be_pinned_compared_linked_to_and_unpinned(browser, site):
    with watched(browser) as page:
        open_page(page, site("curves.html"))
        start = drawn(page)
        lines = page.locator(".rv-svg path[stroke-linejoin]").count()
        for _ in range(4):
            page.click("text=Pin this setting")
            turn(page, "variance")
        assert page.locator(".rv-pin").count() == 4
        # Each pin adds two rewards, a variance, a KL divergence and a gradient norm.
        assert page.locator(".rv-svg path[stroke-linejoin]").count() == lines + 4 * 5
        link, compared = fragment(page), drawn(page)
        assert link.count(";") == 3
        open_page(page, site("curves.html") + link)
        assert drawn(page) == compared
        page.locator(".rv-pin button").first.click()  # back to the first setting, with the pins kept
        settle(page)
        assert page.locator(".rv-pin").count() == 4 and "curves.variance" not in fragment(page)
        for _ in range(4):
            page.locator("[aria-label='Unpin A']").click()
            settle(page)
        assert drawn(page) == start


def test_pins_are_limited(browser, site):
    with watched(browser) as page:
        open_page(page, site("curves.html#curves.pins=" + ";".join(f"seed:{i}" for i in range(1, 10))))
        assert page.locator(".rv-pin").count() == 6
        assert page.locator("text=Pin this setting").is_disabled()


# ---- the picture, its main controls, and the others ----------------------------------------------------------------


def control_of(page, key):
    return page.locator(f"[data-key={key}]").first


@pytest.mark.parametrize("size", [(1280, 800), (360, 740)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_and_its_main_controls_fit_the_screen(browser, site, kind, size):
    header = 56  # pixels that a page of the book keeps for its buttons
    width, height = size
    with watched(browser, viewport={"width": width, "height": height}) as page:
        open_page(page, site(f"{kind.name}.html"), unfold=False)
        page.evaluate("document.body.style.cssText = `margin: 0 auto; max-width: min(672px, 100vw - 48px)`")
        settle(page)
        top, bottom = page.locator(".rv").evaluate(
            """rv => [rv.querySelector('.rv-svg').getBoundingClientRect().top,
                rv.querySelector('.rv-controls').getBoundingClientRect().bottom]"""
        )
        assert bottom - top <= height - header
        for control in kind._controls:
            assert control_of(page, control["key"]).is_visible() == (control["key"] in kind().main)
        assert page.evaluate("""() => document.querySelector('.rv-figure').compareDocumentPosition(
            document.querySelector('.rv-controls')) & Node.DOCUMENT_POSITION_FOLLOWING""")


def test_the_other_controls_unfold_by_keyboard_and_where_a_link_sets_one(browser, site):
    with watched(browser) as page:
        open_page(page, site("dial.html"), unfold=False)
        assert not control_of(page, "seed").is_visible()
        page.locator(".rv-more summary").focus()
        page.keyboard.press("Enter")
        assert control_of(page, "seed").is_visible()
        open_page(page, site("dial.html#dial.accuracy=0.5"), unfold=False)
        assert not control_of(page, "seed").is_visible()
        page.evaluate("location.hash = 'dial.seed=7'")
        settle(page)
        assert control_of(page, "seed").is_visible()
        open_page(page, site("dial.html#dial.seed=7"), unfold=False)
        assert control_of(page, "seed").is_visible()


# ---- small, dark, printed, without scripts ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_screen_needs_no_sideways_scrolling(browser, site, kind):
    with watched(browser, viewport={"width": 360, "height": 740}) as page:
        open_page(page, site(f"{kind.name}.html"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        width = page.locator(".rv-svg").evaluate("s => s.getBoundingClientRect().width")
        outside = page.locator(".rv-svg text").evaluate_all(
            "(texts, width) => texts.filter(t => { const b = t.getBBox(); return b.x < -1 || b.x + b.width > width "
            "+ 1 }).map(t => t.textContent)",
            width,
        )
        assert outside == []
        before = drawn(page)
        turn(page, kind._controls[0]["key"])
        assert drawn(page) != before


# Radio buttons of one choice on several rows; sliders side by side that are not level.
RAGGED = """[...document.querySelectorAll('.rv-radios, .rv-group')].flatMap(group => {
    const boxes = [...group.querySelectorAll('input[type=radio], .rv-slider input')].map(i => i.getBoundingClientRect())
    const tops = boxes.map(b => Math.round(b.top)).sort((a, b) => a - b)
    return group.matches('.rv-radios')
        ? tops.filter(top => top > tops[0] + 1).map(top => `radio ${top}`)
        : tops.filter((top, i) => i && top > tops[i - 1] + 1 && top < tops[i - 1] + 20).map(top => `slider ${top}`)
})"""


@pytest.mark.parametrize("width", [360, 700, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_choices_stand_in_one_row_and_sliders_are_level(browser, site, kind, width):
    with watched(browser, viewport={"width": width, "height": 740}) as page:
        open_page(page, site(f"{kind.name}.html"))
        assert page.evaluate(RAGGED) == []
        choices = [control for control in kind._controls if control["kind"] == "choice"]
        assert page.locator(".rv-radios, .rv select").count() == len(choices)


def test_a_choice_with_no_room_for_a_row_is_a_select(browser, site):
    with watched(browser, viewport={"width": 1000, "height": 740}) as page:
        open_page(page, site("samples.html"))
        assert page.locator("select").count() == 0
        page.set_viewport_size({"width": 360, "height": 740})
        page.wait_for_selector("select[data-key=estimator]")
        before = drawn(page)
        page.locator("select[data-key=estimator]").select_option("grpo")
        assert drawn(page) != before and "samples.estimator=grpo" in fragment(page)
        page.set_viewport_size({"width": 1000, "height": 740})
        page.wait_for_selector("input[data-key=estimator][value=grpo]:checked")
        assert page.locator("select").count() == 0


INK = "getComputedStyle(document.querySelector('.rv-svg text')).fill"


def test_dark_pages(browser, site):
    for scheme in ("light", "dark"):
        with watched(browser, color_scheme=scheme) as page:
            open_page(page, site("dial.html"))
            ink = {"system": page.evaluate(INK)}
            for theme in ("light", "dark"):  # the page's own theme goes before the reader's system
                ink[theme] = page.evaluate(f"document.documentElement.dataset.theme = '{theme}', {INK}")
            page.evaluate("delete document.documentElement.dataset.theme")
            for light, theme in (("true", "light"), ("false", "dark")):
                ink["lab " + theme] = page.evaluate(f"document.body.dataset.jpThemeLight = '{light}', {INK}")
            assert ink["light"] == ink["lab light"] != ink["dark"] == ink["lab dark"]
            assert ink["system"] == ink[scheme]


@pytest.mark.parametrize("kind", KINDS)
def test_print_keeps_the_figure_and_leaves_the_controls_out(browser, site, kind):
    with watched(browser, color_scheme="dark") as page:
        open_page(page, site(f"{kind.name}.html"))
        dark = page.evaluate(INK)
        page.emulate_media(media="print")
        assert page.locator(".rv-svg").is_visible() and page.locator("output, .rv-readouts dd").last.is_visible()
        assert not any(control.is_visible() for control in page.locator("input[type=range], .rv-actions button").all())
        assert page.evaluate(INK) != dark  # paper is white


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_a_picture_says_what_it_shows(browser, site, kind):
    with watched(browser, java_script_enabled=False) as page:
        page.goto(site(f"{kind.name}.html"))
        picture = page.get_by_alt_text(kind.alt)
        box = picture.bounding_box()
        assert box["width"] > 300 and box["height"] > 200
        assert page.locator("figcaption").inner_text() == re.sub(r"<.*?>", "", kind().caption)
        assert len(kind.alt) > 100


def test_every_picture_is_of_a_state_that_a_page_shows():
    assert {path.stem for path in PICTURES.glob("*.svg")} == {figure.in_words for figure in draw.shown()}


def test_the_first_picture_does_not_give_the_bet_away():
    page = urllib.parse.unquote(Race(time=0.1).mount)
    assert "Teacher B" in page and "finished" not in page and "21.6" not in page


@pytest.mark.parametrize("figure", draw.shown(), ids=lambda figure: figure.in_words)
def test_the_pictures_are_what_the_page_draws(figure):
    kept, now = (PICTURES / f"{figure.in_words}.svg").read_text(encoding="utf-8"), draw.draw(figure)
    number = re.compile(r"-?\d+\.?\d*")
    assert number.sub("0", kept) == number.sub("0", now), "run `python -m rvlib.explore.draw`"
    # Another version of Node may round a coordinate the other way.
    values = [np.array(number.findall(text), dtype=float) for text in (kept, now)]
    np.testing.assert_allclose(*values, rtol=0, atol=0.21, err_msg="run `python -m rvlib.explore.draw`")


# ---- what moves by itself or by hand ---------------------------------------------------------------------------------


def test_the_race_plays_pauses_and_ends(browser, site):
    with watched(browser) as page:
        open_page(page, site("race.html#race.time=50000"))
        clock = page.locator("output").first
        before = clock.inner_text()
        page.click("text=Play")
        page.wait_for_timeout(150)
        page.click("text=Pause")
        page.wait_for_function("document.querySelector('.rv-play').textContent.includes('Play')")
        settle(page)
        paused = clock.inner_text()
        assert paused != before
        page.wait_for_timeout(150)
        assert clock.inner_text() == paused
        page.click("text=Play")
        page.wait_for_function("document.querySelector('.rv-play').textContent.includes('Play')", timeout=10_000)
        assert page.locator("[data-key=time]").evaluate("s => s.value === s.max")


def test_the_race_goes_in_steps_where_motion_is_reduced(browser, site):
    with watched(browser, reduced_motion="reduce") as page:
        open_page(page, site("race.html#race.time=100"))
        page.click("text=Play")
        page.wait_for_timeout(300)
        assert page.locator("output").first.inner_text() == "100"
        page.wait_for_function("document.querySelector('output').textContent === '316'", timeout=3_000)


def test_a_curve_is_read_off_under_the_pointer(browser, site):
    with watched(browser) as page:
        open_page(page, site("curves.html"))
        box = page.locator(".rv-svg").bounding_box()
        before = page.locator(".rv-svg text").count()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 150)
        assert page.locator(".rv-svg text").count() == before + 6  # five values and the time
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 20)
        assert page.locator(".rv-svg text").count() == before


def test_the_landscape_can_be_dragged(browser, site):
    with watched(browser, viewport={"width": 900, "height": 1400}) as page:
        open_page(page, site("landscape.html"))
        state = lambda key: float(page.locator(f"[data-key={key}]").input_value())  # noqa: E731
        best, azimuth = state("best"), state("turn")
        for target, shift in (("[data-drag=start]", (0, -60)), ("[data-drag=turn]", (-80, 0))):
            box = page.locator(target).first.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + shift[0], y + shift[1], steps=5)
            page.mouse.up()
            settle(page)
        assert state("best") > best + 0.1
        assert state("turn") == azimuth + 48


# ---- numbers ---------------------------------------------------------------------------------------------------------


def computed(node, explorable, expression):
    """What a page computes for an explorable's state: the JavaScript `expression` of its `view`, as JSON."""
    program = (
        f"const {{ default: e }} = await import('{(WEB / explorable.name).as_uri()}.mjs'); const view = "
        f"e.compute({json.dumps(explorable.state())}); console.log(JSON.stringify({expression}))"
    )
    done = node("--input-type=module", "--eval", program)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"accuracy": 0.5, "variance": 0.9, "seed": 7},
        {"kl_coef": 0.05, "outputs": 30, "peakedness": 3.0},
        {"accuracy": 0.0, "skill": 2.0, "gain": 0.05},
    ],
)
def test_curves_are_those_of_the_library(node, change):
    figure = Curves(**change)
    truth, logits = problem(figure.outputs, figure.peakedness, figure.skill, figure.seed)
    reward = teacher(truth, logits, figure.accuracy, figure.variance, figure.seed)
    options = dict(kl_coef=figure.kl_coef)
    flow = gradient_flow(logits, reward, figure.horizon, ground_truth=truth, **options)
    page = computed(
        node,
        figure,
        "{times: [...view.now.times], ...view.now.flow, probs: 0, logits: 0, t: 0, finish: view.now.truthTime, "
        "proxyFinish: view.now.proxyTime, bound: view.now.bound, made: [...view.now.made.reward]}",
    )
    np.testing.assert_allclose(page["made"], reward, atol=1e-12)
    at = flow(np.array(page["times"]))
    for key, exact in {
        "proxy": at.proxy,
        "groundTruth": at.ground_truth,
        "variance": at.variance,
        "kl": at.kl,
        "gradientNorm": at.gradient_norm,
    }.items():
        np.testing.assert_allclose(page[key], exact, atol=2e-3 * max(1, exact.max()), err_msg=key)  # a third of a pixel
    for key, measured in {"finish": truth, "proxyFinish": None}.items():
        exact = time_to_gain(logits, reward, figure.gain, measured=measured, **options)
        # The page has none for a time later than 1e9, or never.
        assert page[key] == pytest.approx(exact, rel=1e-6) if page[key] else exact > 1e9, key
    assert page["bound"] == pytest.approx(
        bounds.tabular_slow_time_bound(reward_variance(reward, softmax(logits)), figure.gain), rel=1e-9
    )


def test_under_the_natural_gradient_the_figures_show_its_flow_and_its_bound_alone(node):
    figure = Curves(metric="natural", kl_coef=0.01, skill=-3.0, pins=[{**Curves().state(), "pins": []}])
    truth, logits = problem(figure.outputs, figure.peakedness, figure.skill, figure.seed)
    reward = teacher(truth, logits, figure.accuracy, figure.variance, figure.seed)
    page = computed(
        node,
        figure,
        "{times: [...view.now.times], proxy: view.now.flow.proxy, norm: view.now.flow.gradientNorm, "
        "finish: view.now.truthTime, own: view.now.proxyTime, bound: view.now.bound, pin: view.pins[0].truthTime, "
        "words: e.draw(view, 600, 'f').parts.join('') + JSON.stringify(e.readouts(view)) + e.describe(view) "
        "+ e.pinLabel(view.state.pins[0], view, 0)}",
    )
    probs = geometry.natural_gradient_flow(logits, reward, page["times"], kl_coef=0.01)
    np.testing.assert_allclose(page["proxy"], probs @ reward, atol=1e-8)
    regularised = reward - 0.01 * np.log(probs[50] / softmax(logits))
    assert page["norm"][50] == pytest.approx(np.sqrt(reward_variance(regularised, probs[50])), rel=1e-6)
    for key, measured in {"finish": truth, "own": reward}.items():
        assert page[key] == pytest.approx(
            geometry.natural_time_to_gain(logits, reward, figure.gain, measured=measured, kl_coef=0.01), rel=1e-8
        )
    variance = reward_variance(reward, softmax(logits))
    assert page["bound"] == pytest.approx(
        geometry.natural_slow_time_bound(variance, figure.gain, np.ptp(reward)), rel=1e-9
    )
    assert page["bound"] <= min(page["finish"], page["own"])
    # A pin keeps the metric in which it was made, and says so.
    plain = Curves()
    assert page["pin"] == pytest.approx(computed(node, plain, "view.now.truthTime"), rel=1e-9)
    assert "metric Euclidean" in page["words"]
    # The paper's bounds are about the Euclidean metric: none is drawn, and the figure says so.
    assert "not the paper's Prop. 3" in page["words"] and "dotted: bound" not in page["words"]
    assert "The paper's Prop. 3: lower bound" not in page["words"]
    finishes = computed(node, Race(metric="natural"), "view.students.map(s => s.finish)")
    truth, logits = problem(12, 0.6, -1.0, 9)
    for finish, (accuracy, variance) in zip(finishes, [(1.0, 1e-4), (0.6, 0.4)]):
        reward = teacher(truth, logits, accuracy, variance, 9)
        assert finish == pytest.approx(geometry.natural_time_to_gain(logits, reward, 0.5, measured=truth), rel=1e-8)


def test_the_race_tells_nothing_before_it_starts(node):
    """The picture where no script runs, its words, and the figure as it opens: both students alike."""
    figure = Race()
    told = computed(node, figure, "[e.draw(view, 600, 'f').parts.slice(0, 2), e.readouts(view), e.describe(view)]")
    assert not any("finished" in words or "✓" in words for words in [*told[0], told[2], figure.alt, figure.caption])
    assert [row[1] for row in told[1][:2]] == ["not yet", "not yet"] and told[1][2][1] == told[1][3][1]
    badges = re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)" r="9"', draw.draw(figure))
    assert len(badges) == 2 and abs(float(badges[0]) - float(badges[1])) < 0.5


def test_the_dial_shows_the_metrics_of_the_library(node):
    figure = Dial(accuracy=0.61, variance=0.3, scale=2.0, between=0.5, seed=5)
    truth, logits = problem(figure.outputs, figure.peakedness, figure.skill, figure.seed)
    probs, reward = softmax(logits), 2 * teacher(truth, logits, figure.accuracy, figure.variance, figure.seed)
    page = computed(
        node,
        figure,
        "{variance: view.variance, covariance: view.covariance, wrong: view.wrong, pairs: view.made.pairs, "
        "normalised: view.normalised}",
    )
    assert page["variance"] == pytest.approx(reward_variance(reward, probs), rel=1e-9)
    assert page["covariance"] == pytest.approx(reward_covariance(reward, truth, probs), rel=1e-9)
    assert 1 - page["wrong"] / page["pairs"] == pytest.approx(ranking_accuracy(reward, truth))
    assert page["normalised"] == pytest.approx(page["variance"] / (page["variance"] + (2 * 0.5) ** 2))


def test_the_landscape_and_the_race_measure_as_the_library_does(node):
    figure = Landscape(kl_coef=0.01)
    logits, truth = np.log([0.1, 0.3, 0.6]), np.array([1.0, 0.0, -1.0])
    page = computed(node, figure, "view.teachers.map(t => [t.time, t.accuracy, t.variance, t.now])")
    for (finish, accuracy, variance, probs), letter in zip(page, "ab"):
        reward = np.array([getattr(figure, f"{letter}_{name}") for name in ("best", "middling", "worst")])
        assert finish == pytest.approx(
            time_to_gain(logits, reward, figure.gain, measured=truth, kl_coef=0.01), rel=1e-6
        )
        assert accuracy == pytest.approx(ranking_accuracy(reward, truth))
        assert variance == pytest.approx(reward_variance(reward, softmax(logits)))
        now = gradient_flow(logits, reward, figure.time, kl_coef=0.01).probs[-1]
        np.testing.assert_allclose([probs[str(i)] for i in range(3)], now, atol=1e-6)
    figure = Race()
    truth, logits = problem(figure.outputs, figure.peakedness, figure.skill, figure.seed)
    for letter, finish in zip("ab", computed(node, figure, "view.students.map(s => s.finish)")):
        reward = teacher(
            truth, logits, getattr(figure, f"{letter}_accuracy"), getattr(figure, f"{letter}_variance"), figure.seed
        )
        assert finish == pytest.approx(time_to_gain(logits, reward, figure.gain, measured=truth), rel=1e-6)


def contrast(one, other):
    """How much lighter one colour is than another, from 1 to 21, as WCAG 2 has it."""

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_a_colour_means_one_thing_and_stands_out_in_both_modes(mode):
    colours = {name: pair[mode] for name, pair in PALETTE.items()}
    roles = {"proxy", "truth", "bound", "a", "b"}
    others = {name for name in colours if name in ("good", "other") or name.startswith("pin-")}
    assert len({colours[name] for name in roles}) == len(roles)
    assert not {colours[name] for name in roles} & {colours[name] for name in others}
    for name in roles | others:
        assert contrast(colours[name], colours["paper"]) >= 3
    for name in ("ink", "quiet", "truth", "bound", "a", "b"):  # of letters too
        assert contrast(colours[name], colours["paper"]) >= 4.5


def treated(name, **changes):
    """A remedy of the library, with changes."""
    return dataclasses.replace(treatments.REMEDIES[name], **changes)


def only(*ranks):
    """The toggles of the samples that are used, and no others."""
    return {f"sample_{i + 1}": i in ranks for i in range(6)}


def pulled(share):
    """The rewards on their way to an even spread of their ranking."""
    even = treatments.REMEDIES["spread the ranking"].reward
    return lambda world: (1 - share) * world.reward + share * even(world)


@pytest.mark.parametrize(
    ("change", "remedy", "ranks"),
    [
        ({}, treated("nothing"), None),
        ({"remedy": "scale"}, treated("scale by 10"), None),
        ({"remedy": "scale", "rule": "plain", "step": 2.0}, treated("scale by 10"), None),
        ({"remedy": "centre"}, treated("centre"), None),
        ({"remedy": "bounded", "strength": 0}, treated("bounded (PAR)"), None),
        (
            {"remedy": "smoothing", "strength": 5},
            treated("label smoothing", reward=lambda world: treatments.fit_bradley_terry(world.reward, smoothing=0.2)),
            None,
        ),
        ({"remedy": "margin", "strength": 5}, treated("margin"), None),
        ({"remedy": "ensemble", "strength": 10}, treated("ensemble"), None),
        ({"remedy": "discretise", "strength": 8}, treated("discretise"), [0, 2, 5]),
        ({"remedy": "dither", "strength": 2}, treated("dither"), None),
        ({"remedy": "spread", "strength": 10}, treated("spread the ranking"), [0, 5]),
        ({"remedy": "spread", "strength": 3}, treated("spread the ranking", reward=pulled(0.3)), None),
        ({"remedy": "grpo"}, treated("group normalisation"), None),
        (
            {"remedy": "grpo", "seed": 4, "quiet": 0.3, "error": 1.0, "skill": 0.2},
            treated("group normalisation"),
            [4, 5],
        ),
        ({"remedy": "undivided"}, treated("nothing"), None),
    ],
)
def test_the_remedies_train_as_the_library_does_in_expectation(node, change, remedy, ranks):
    figure = Remedies(**change, **(only(*ranks) if ranks else {}))
    page = computed(
        node,
        figure,
        "view.runs.map(run => ({truth: [...run.truth], steps: run.reached, variance: run.variance, "
        "accuracy: run.accuracy, used: run.used, largest: run.largest, noise: run.noise}))",
    )
    world = two_prompts(figure.error, figure.quiet, figure.skill, figure.seed)
    before = treated("group normalisation" if figure.remedy == "undivided" else "nothing")
    for side, (training, used) in zip(page, [(before, None), (remedy, ranks)]):
        outcome = treatments.train_in_expectation(
            world,
            training,
            policies=treatments.TabularPolicies(world.logits, plain=figure.rule == "plain"),
            steps=150,
            ranks=used,
            learning_rate=figure.step,
        )
        np.testing.assert_allclose(side["truth"], outcome.truth[0], atol=1e-8)
        assert side.get("steps", np.inf) == outcome.steps_to_gain(figure.gain)[0]
        assert side["accuracy"] == pytest.approx(outcome.accuracy[0], abs=1e-12)
        within = reward_variance(training.reward(world), softmax(world.logits)).mean()
        assert side["variance"] == pytest.approx(within + training.dither**2, rel=1e-9)
    # The variance of the samples used, and the largest that so many of six can have.
    probs, reward, k = softmax(world.logits), remedy.reward(world), len(ranks or range(6))
    largest = treatments.Remedy("", oversample=6 // k)
    for key, exact in {
        "used": treatments.expected_variance(probs, reward, remedy, 6, ranks),
        "largest": treatments.expected_variance(probs, reward, largest, k),
    }.items():
        assert page[1][key] == pytest.approx(exact.mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "none"),
        ({"mediocre": -1.0}, "beneficial"),
        ({"mediocre": 0.9}, "harmful"),
        ({"mediocre": 1.0}, "harmful"),
        ({"bad": -1.05}, "benign"),
        ({"bad": 1.5}, "harmful"),
        ({"mediocre": -0.8, "truth": 0.2, "rare": 0.1, "common": 0.85, "gain": 0.4}, "beneficial"),
    ],
)
def test_the_plateau_and_the_kind_of_error_are_those_of_the_exact_flow(node, change, kind):
    figure = Plateau(**change)
    page = computed(
        node,
        figure,
        "{kind: view.kind, time: view.run.time, reference: view.reference.time, plateaus: view.run.plateaus, "
        "times: [...view.run.times], truth: [...view.run.flow.groundTruth], proxy: [...view.run.flow.proxy], "
        "variance: view.run.variance, accuracy: view.accuracy, harmAware: view.harmAware}",
    )
    probs = np.array([figure.rare, figure.common, 1 - figure.rare - figure.common])
    logits, truth = np.log(probs), np.array([1.0, figure.truth, -1.0])
    reward = np.array([figure.good, figure.mediocre, figure.bad])
    assert page["kind"] == kind
    exact = time_to_gain(logits, reward, figure.gain, measured=truth)
    assert page["time"] == pytest.approx(exact, rel=1e-6) if page["time"] else exact == np.inf
    assert page["reference"] == pytest.approx(time_to_gain(logits, truth, figure.gain), rel=1e-6)
    flow = gradient_flow(logits, reward, 1e7, ground_truth=truth)
    at = flow(np.array(page["times"]))
    np.testing.assert_allclose(page["truth"], at.ground_truth, atol=2e-3)
    np.testing.assert_allclose(page["proxy"], at.proxy, atol=2e-3)
    # At its ends one of the wrong outputs has the probability 0.9, in between more, and outside less.
    wrong = lambda time: flow(np.array([time])).probs[0, 1:].max()  # noqa: E731
    for start, end in page["plateaus"]:
        if start:
            assert wrong(start) == pytest.approx(0.9, abs=1e-6) and wrong(0.9 * start) < 0.9
        if end:
            assert wrong(end) == pytest.approx(0.9, abs=2e-6) and wrong(1.1 * end) < 0.9
        assert wrong(np.sqrt(max(start, 0.1) * (end or 1e7))) > 0.9
    assert bool(page["plateaus"]) == bool((at.probs[:, 1:].max(-1) > 0.9).any())
    assert page["variance"] == pytest.approx(reward_variance(reward, probs), rel=1e-9)
    pairs = probs[:, None] * probs
    assert page["accuracy"] == pytest.approx(ranking_accuracy(reward, truth, pairs), rel=1e-9)
    # The audit's number is of sampled replies: as many of each output as the policy's probabilities say.
    replies = np.repeat(np.arange(3), np.rint(100 * probs).astype(int))
    different = (replies[:, None] != replies)[None]
    assert page["harmAware"] == pytest.approx(
        harm_aware_accuracy(reward[replies][None], truth[replies][None], different).accuracy[0], rel=1e-9
    )


def test_the_figures_of_two_predictions_open_without_their_answers(node):
    """Untreated and treated training are alike, and the reward model makes no error yet."""
    untreated, now = computed(node, Remedies(), "view.runs.map(run => [...run.truth])")
    assert untreated == now
    assert computed(node, Plateau(), "[view.kind, view.run === view.reference]") == ["none", True]


# ---- the classes -----------------------------------------------------------------------------------------------------


JOINT_STATES = int(os.environ.get("JOINT_STATES", {"quick": 10, "nightly": 10_000}.get(PROFILE, 60)))


def test_no_joint_state_draws_what_is_no_number(node):
    """In random states of all controls at once, ends of sliders among them, nothing drawn or said is NaN or undefined;
    JOINT_STATES=10000 for many of each figure.
    """
    figures = [{"name": kind.name, "controls": kind._controls, "initial": kind().state()} for kind in KINDS]
    done = node("tests/states.mjs", str(JOINT_STATES), "1", input=json.dumps(figures))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "grades",
            {
                "time": 1,
                "error": 0.1,
                "scales": 0,
                "outputs": 3,
                "peakedness": 0,
                "skill": -2.4,
                "seed": 1,
            },
            "accuracy –",
        ),
        (
            "samples",
            {
                "accuracy": 0.93,
                "variance": 1,
                "multiplier": 501,
                "noise": 1.58,
                "group": 15,
                "step": 19.9,
                "kl_coef": 0.0025,
                "seed": 3,
            },
            "diverges",
        ),
        ("remedies", {"skill": 0} | only(0, 1), "below its start"),
        ("remedies", only(2), "more than 150"),
        ("plateau", {"mediocre": 1.2}, "for ever"),
    ],
)
def test_a_state_without_an_answer_says_so(node, name, change, said):
    """A predictor that is the same for all teachers has no correlation; a run whose steps are too large diverges;
    training on the two worst samples of each group ends below its start.
    """
    figure = next(kind for kind in KINDS if kind.name == name)(**change)
    drawn, words = computed(
        node, figure, "[e.draw(view, 600, 'f').parts.join('') + JSON.stringify(e.readouts(view)), e.describe(view)]"
    )
    assert "NaN" not in drawn + words and said in words


@pytest.mark.parametrize(
    ("name", "key", "idle", "active"),
    [
        ("gradient", "drift", {"kl_coef": 0}, {"kl_coef": 0.1}),
        ("steps", "drift", {"kl_coef": 0}, {"kl_coef": 0.1}),
        ("gradient", "kl_coef", {"drift": 0, "kl_coef": 1}, {"drift": 1, "kl_coef": 1}),
        ("steps", "kl_coef", {"drift": 0, "kl_coef": 1}, {"drift": 0.2, "kl_coef": 1}),
        ("gradient", "one_row", {"length": 1}, {"length": 2}),
        ("landscape", "middling", {"best": 0.98}, {"best": 0.5}),
        ("constructions", "gain", {"outputs": 3, "peakedness": 1.25, "skill": 1.75}, {}),
        ("teachers", "gain", {"rarity": 2, "likely": 0.8, "outputs": 14}, {}),
        ("calculator", "gpus", {"method": "adam8bit"}, {"method": "lora"}),
        ("remedies", "strength", {"remedy": "none"}, {"remedy": "centre"}),
        ("remedies", "strength", {"remedy": "ensemble", "error": 0}, {"remedy": "ensemble"}),
        ("remedies", "strength", {"remedy": "grpo"} | only(3), {"remedy": "grpo"} | only(3, 5)),
    ],
)
def test_a_slider_that_changes_nothing_is_disabled_and_says_why(browser, site, node, name, key, idle, active):
    kind = next(kind for kind in KINDS if kind.name == name)
    control = next(control for control in kind._controls if control["key"] == key)
    ends = (False, True) if control["kind"] == "toggle" else (control["min"], control["max"])
    see = "e.draw(view, 600, 'f').parts.join('') + JSON.stringify(e.readouts(view))"
    for change, same in ((idle, True), (active, False)):
        low, high = (computed(node, kind(**(change | {key: end})), see) for end in ends)
        assert (low == high) == same
    with watched(browser) as page:
        for change, disabled in ((idle, True), (active, False)):
            words = "&".join(
                f"{name}.{setting}={json.dumps(value) if isinstance(value, bool) else value}"
                for setting, value in change.items()
            )
            open_page(page, site(f"{name}.html#{words}"))
            slider = page.locator(f"[data-key={key}]")
            assert slider.is_disabled() == disabled
            hint = page.locator(f"#{slider.get_attribute('aria-describedby')}").inner_text()
            assert bool(hint) == disabled


def test_what_takes_longer_than_a_frame_leaves_the_page_free(browser, site):
    """The policies of `gradient` are made in a worker, and all of them come in the end."""
    with watched(browser) as page:
        open_page(page, site("gradient.html"))
        turn(page, "seed")
        page.wait_for_function("document.querySelector('.rv-readouts').innerText.includes('3000')")
        assert page.evaluate("performance.getEntriesByType('resource').some(r => r.name.endsWith('worker.mjs'))")


def test_a_wrong_parameter_is_named():
    with pytest.raises(TypeError, match="Curves has no parameter 'acuracy'; it has accuracy, variance"):
        Curves(acuracy=0.9)
    with pytest.raises(traitlets.TraitError, match="accuracy.*1.5"):
        Curves(accuracy=1.5)


def test_a_setting_is_where_reset_returns_to():
    figure = Curves(accuracy=0.9, pins=[{"variance": 0.5}])
    figure.accuracy = 0.3
    assert figure.state()["accuracy"] == 0.3 and figure.initial["accuracy"] == 0.9
    (pin,) = figure.initial["pins"]
    assert pin == {key: figure.initial[key] for key in pin} | {"variance": 0.5} and {"pins", *pin} == {*figure.initial}


def test_it_is_a_widget_a_page_and_a_picture():
    data, _ = Curves()._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "image/svg+xml"} <= set(data)
    assert 'data-explorable="curves"' in data["text/html"] and "<script" not in data["text/html"]
    # A widget's module has no address to resolve imports by.
    assert "./" not in re.sub(r'"data:[^"]*"', "", Curves()._esm)


@pytest.mark.parametrize(
    ("module", "unwanted"), [("rvlib", "anywidget"), ("rvlib.explore", "torch"), ("rvlib.explore", "scipy.optimize")]
)
def test_imports_stay_light(module, unwanted):
    program = f"import sys, {module}; print('{unwanted}' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- the paper's tables ----------------------------------------------------------------------------------------------

_TABLES = """
const [module, states] = process.argv.slice(1);
const { pearson, points } = await import(module);
const correlation = (pairs) => pearson(pairs.map((pair) => pair.x), pairs.map((pair) => pair.y));
console.log(JSON.stringify(JSON.parse(states).map((state) => correlation(points(state)))));
"""


def test_the_page_has_the_papers_tables_as_they_are():
    assert (WEB / "papertables.mjs").read_text(encoding="utf-8") == tables.module(), (
        "run python -m rvlib.explore.tables"
    )


def test_the_page_correlates_as_python_does():
    public = paper.table("public_reward_models")
    pair = np.char.add(np.char.add(public["initial_policy"], ", "), public["algorithm"])
    columns = dict(
        zip(
            ("variance", "onpolicy", "offpolicy", "accuracy", "both"),
            properties(*(public[name] for name in tables.COLUMNS[:3])).values(),
        )
    )
    columns["product"] = np.sqrt(public["reward_variance"]) * (2 * public["on_policy_accuracy"] - 1)
    models = dict(grm_gemma="GRM-Gemma-2-2B", grm_llama="GRM-Llama-3.2-3B", tulu="RM-Tulu-V2-8B", gemma="RM-Gemma-2B")
    states, expected = [], []
    for column, values in columns.items():
        for outcome, gained in (("truth", public["ground_truth_increase"]), ("proxy", public["proxy_increase"])):
            for left_out in (None, "gemma"):
                kept = public["reward_model"] != models.get(left_out)
                states.append(
                    {"property": column, "outcome": outcome, "pair": "all"} | {key: key != left_out for key in models}
                )
                expected.append(
                    np.corrcoef(*(paper.within_groups(x[kept], pair[kept]) for x in (values, gained)))[0, 1]
                )
            third_pair = pair == list(dict.fromkeys(pair.tolist()))[3]
            states.append({"property": column, "outcome": outcome, "pair": "3"} | dict.fromkeys(models, True))
            expected.append(correlations({column: values[third_pair]}, gained[third_pair])[column]["pearson"])
    command = [draw.node(), "--input-type=module", "--eval", _TABLES, (WEB / "tables.mjs").as_uri(), json.dumps(states)]
    on_the_page = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert np.allclose(on_the_page, expected, atol=1e-8)


# ---- the study of reward models --------------------------------------------------------------------------------------

# The marks of a panel in the order of drawing: the reward model that is chosen comes last.
MARKS = "[...document.querySelectorAll('.rv-svg svg path[transform]')].map(m => { const b = m.getBoundingClientRect(); "
MARKS += "return [b.x + b.width / 2, b.y + b.height / 2] })"


@pytest.fixture(scope="module")
def study():
    return teacher_study.load()


def test_the_page_has_the_study_as_it_is():
    kept, now = (WEB / "studypoints.mjs").read_text(encoding="utf-8"), predictors.module()
    number = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
    assert number.sub("0", kept) == number.sub("0", now), "run `python -m rvlib.explore.predictors`"
    values = [np.array(number.findall(text), dtype=float) for text in (kept, now)]
    np.testing.assert_allclose(*values, rtol=0, atol=2e-4, err_msg="run `python -m rvlib.explore.predictors`")


def test_the_page_offers_all_that_the_study_has(study):
    assert set(predictors.PREDICTORS.values()) == set(study.predictors)
    assert set(predictors.OUTCOMES.values()) == set(teacher_study.OUTCOMES)
    assert list(predictors.POLICIES) == study.policies and list(predictors.ALGORITHMS) == study.algorithms
    assert predictors.TEACHERS == len(study.teachers)


def test_every_reward_model_of_the_study_has_a_family(study):
    sizes = collections.Counter(map(teacher_study.family, study.teachers))
    assert sorted(sizes.values()) == [3, 4, 7, 8, 10, 24] and sizes["trained"] == 24 and sizes["harmful"] == 8
    with pytest.raises(ValueError, match="one of the families .* got 'another'"):
        teacher_study.family("another")


def test_the_page_correlates_and_regrets_as_the_study_does(node, study):
    states = [
        Predictors(predictor=predictor, outcome=outcome, algorithm=algorithm, policy=policy).state()
        for policy in (*predictors.POLICIES, "all")
        for algorithm in predictors.ALGORITHMS
        for outcome in predictors.OUTCOMES
        for predictor in predictors.PREDICTORS
    ]
    program = (
        f"const {{ default: e }} = await import('{(WEB / 'predictors.mjs').as_uri()}'); console.log(JSON.stringify("
        f"{json.dumps(states)}.map(state => e.compute(state)).map(view => [view.spearman[0], view.regret[0]])))"
    )
    expected = []
    for policy in (*predictors.POLICIES, "all"):
        part = study if policy == "all" else study.under(policy)
        for algorithm in predictors.ALGORITHMS:
            for outcome in predictors.OUTCOMES.values():
                order, pick = (
                    teacher_study.compare(part, algorithm, outcome, measure, resamples=2).values
                    for measure in ("spearman", "regret")
                )
                expected += [[order[name].value, pick[name].value] for name in predictors.PREDICTORS.values()]
    page = np.array(json.loads(node("--input-type=module", "--eval", program).stdout))
    np.testing.assert_allclose(page[:, 0], np.array(expected)[:, 0], atol=1e-8)
    np.testing.assert_allclose(page[:, 1], np.array(expected)[:, 1], atol=2e-5)  # the outcomes have six decimals


def test_the_study_opens_without_its_winner(study):
    figure = Predictors()
    for measure in teacher_study.MEASURES:
        best = teacher_study.compare(study.under(figure.policy), figure.algorithm, "gain", measure, resamples=2).best
        assert predictors.PREDICTORS[figure.predictor] != best


def test_a_reward_model_is_told_by_pointer_click_and_key(browser, site, study):
    with watched(browser, viewport={"width": 900, "height": 1200}) as page:
        open_page(page, site("predictors.html"))
        words = lambda: page.locator(".rv-svg").evaluate("s => s.textContent")  # noqa: E731
        slider = page.locator("[data-key=teacher]")
        harmful = study.teachers.index("emphasis × 3")
        x, y = page.evaluate(MARKS)[harmful - 1]  # the first, which is chosen, is drawn last
        assert "emphasis × 3" not in words()
        page.mouse.move(x, y)
        assert "emphasis × 3" in words() and "harmful" in words()
        page.mouse.click(x, y)
        settle(page)
        assert slider.get_attribute("aria-valuetext") == "emphasis × 3"
        page.mouse.move(0, 0)
        assert "emphasis × 3" in words()
        slider.focus()
        page.keyboard.press("ArrowRight")
        settle(page)
        assert slider.get_attribute("aria-valuetext") == study.teachers[harmful + 1]
        assert study.teachers[harmful + 1] in words() and "emphasis × 3" not in words()


# ---- the calculator --------------------------------------------------------------------------------------------------


def test_the_page_has_the_sizes_as_they_are():
    assert (WEB / "sizes.mjs").read_text(encoding="utf-8") == calculator.module(), (
        "run python -m rvlib.explore.calculator"
    )


@pytest.mark.parametrize("policy", calculator.POLICIES)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method": "lora", "gpus": 4, "rows": 40, "batch": 100},
        {"method": "adam", "gpus": 3, "gpu": "H100", "checkpointing": False},
        {"method": "adam", "gpu": "A100", "prompt": 64, "teacher": "gemma", "micro_batch": 9},
    ],
)
def test_the_calculator_plans_as_the_planner_does(node, policy, change):
    figure = Calculator(policy=policy, **change)
    page = computed(
        node, figure, "{parts: view.parts, peak: view.peak, time: view.time, hours: view.hours, money: view.money}"
    )
    of = lambda name: cost.MODELS[(calculator.POLICIES | calculator.REWARD_MODELS)[name][1]]  # noqa: E731
    method, gpus = calculator.METHODS[figure.method], figure.gpus
    shared = dict(batch_size=figure.rows, reply=figure.reply, gradient_checkpointing=figure.checkpointing, gpus=gpus)
    parts = cost.memory(
        of(policy),
        of(figure.teacher),
        cost.MODELS[calculator.TRUTH],
        micro_batch=figure.micro_batch,
        prompt=figure.prompt,
        **method,
        **shared,
    )
    time = cost.step(
        of(policy),
        of(figure.teacher),
        replies=figure.batch,
        prompt=min(figure.prompt, cost.USUAL_PROMPT_TOKENS),
        machine=cost.MACHINES[figure.gpu],
        rank=method["rank"],
        **shared,
    )
    assert (
        page["parts"] == pytest.approx(parts, rel=1e-12)
        and page["time"] == pytest.approx(time, rel=1e-12)
        and page["peak"] == pytest.approx(cost.total(parts), rel=1e-12)
    )
    hours = max(round(figure.replies / figure.batch), 1) * sum(time.values()) / 3600
    assert (page["hours"], page["money"]) == pytest.approx((hours, hours * gpus * figure.price), rel=1e-12)
