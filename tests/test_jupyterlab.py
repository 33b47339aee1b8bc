"""An explorable in a real JupyterLab: a slider moved in the browser is read by the kernel, and a trait set there moves
the slider.
"""

import re

from jupyter import jupyterlab, notebook, ready, run_cell

CELLS = (
    "from rvlib.explore import Curves\nfigure = Curves(accuracy=0.9, variance=0.01)\nfigure",
    "print(f'the kernel reads {figure.accuracy:.2f} and {figure.variance:.4f}')",
    "figure.gain = 0.77",
)


def test_kernel_and_slider_follow_each_other(browser, tmp_path):
    (tmp_path / "curves.ipynb").write_text(notebook(*CELLS))
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        with jupyterlab(tmp_path) as address:
            page.goto(f"{address}/lab/tree/curves.ipynb")
            ready(page)
            run_cell(page, 0)
            page.wait_for_selector(".rv-svg text", timeout=60_000)
            assert page.locator("figure.rv-explorable").count() == 0  # the widget, not the page's mount
            before = page.locator(".rv-svg").inner_html()

            accuracy = page.locator("[data-key=accuracy]")
            assert accuracy.input_value() == "0.9"
            accuracy.focus()
            for _ in range(5):
                page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(500)
            assert page.locator(".rv-svg").inner_html() != before
            run_cell(page, 1)
            page.wait_for_selector("text=the kernel reads 0.85 and 0.0100", timeout=30_000)

            run_cell(page, 2)
            page.wait_for_function("document.querySelector('[data-key=gain]').value === '0.77'", timeout=30_000)
            assert re.search(r"0\.77", page.locator(".rv-slider", has_text="gain").inner_text())
    finally:
        context.close()
    assert errors == []
