"""What every test shares: the browser, the Node binary, and how many random instances a bound meets."""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The first is what a container that runs as root needs; with the others the browser asks nothing of other hosts.
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
NO_BROWSER = (
    "No browser found: install Chromium (Debian: `apt-get install chromium`), run `python -m playwright install "
    "chromium`, or set RVLIB_BROWSER to the path of one."
)


# Where several processes share the tests, each keeps to one core: threads of two that wait for each other take longer
# than one. It is said before anything imports NumPy or torch, and programs that a test starts keep to it too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Set how many instances a bound meets."""
    # Here as below: tests that need no such package run where it is not installed.
    import hypothesis

    # Random instances of a bound, in `make quick`, `make test` and `make nightly`; a test that says max_examples keeps
    # it.
    for name, examples in {"quick": 50, "ci": 2_000, "nightly": 100_000}.items():
        hypothesis.settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            print_blob=True,
            derandomize=name != "nightly",
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def find_browser(playwright: "Playwright") -> str | None:
    """Path of a Chromium: $RVLIB_BROWSER, else the system's, else Playwright's own; None if there is none of them."""
    if named := os.environ.get("RVLIB_BROWSER"):
        if path := shutil.which(named):
            return path
        raise FileNotFoundError(
            f"RVLIB_BROWSER must be the path of a Chromium or its name on the PATH, got {named!r}; correct or unset it."
        )
    own = playwright.chromium.executable_path
    systems = filter(None, map(shutil.which, SYSTEM_BROWSERS))
    return next(systems, own if os.path.exists(own) else None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for torch: tensors this small are slower on many."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, driven by Playwright's synchronous API."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = find_browser(playwright)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
        instance = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def node():
    """Run a JavaScript module in the Node that Playwright's wheel carries: node(arguments) -> CompletedProcess."""
    from playwright._impl._driver import compute_driver_executable

    executable = compute_driver_executable()[0]

    def run(*arguments, **options):
        return subprocess.run([executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, **options)

    return run
