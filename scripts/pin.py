"""Resolve pyproject.toml's ranges into pinned requirements for Python 3.11 and 3.12 on every system.

    python scripts/pin.py [--upgrade]

Without --upgrade every package keeps the version it has, and only what is new in pyproject.toml is resolved.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADS = {
    "book": "To read and play: build the book, open its notebooks.",
    "lint": "To check the code, beside requirements-book.txt, which has NumPy and its types.",
    "lm": "To run the language models, beside requirements-book.txt. torch is the build that pip finds or has: "
    "README.md says how to get CPU's.",
    "deepspeed": "To share out weights by DeepSpeed's ZeRO-3 in place of FSDP2, beside those two.",
    "test": "To run the tests, beside the others.",
}
# torch chooses these itself: its CUDA wheels on Linux need them at versions that it pins, its CPU wheels do not.
FROM_TORCH = re.compile(r"^(cuda|nvidia|triton)-?")


def resolve(extras: Iterable[str], constraints: Iterable[pathlib.Path]) -> list[str]:
    """Pinned lines for some of pyproject.toml's extras, all that they require in turn included."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--universal",
        "--python-version=3.11",
        "--no-header",
        "--no-annotate",
        "--quiet",
        *(f"--constraint={path}" for path in constraints),
        *(f"--extra={extra}" for extra in extras),
    ]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [line for line in lines if not FROM_TORCH.match(line)]


with tempfile.TemporaryDirectory() as folder:
    # All together first, so that the files agree; then what each adds to those before it.
    whole = pathlib.Path(folder, "whole.txt")
    whole.write_text("\n".join(resolve(HEADS, [] if "--upgrade" in sys.argv else ROOT.glob("requirements-*.txt"))))
    done = set()
    for extra, head in HEADS.items():
        lines = [line for line in resolve({"book", extra}, [whole]) if not {line, line.split(" ; ")[0]} & done]
        if extra != "lint":  # nothing else may count on it
            done |= set(lines)
        text = f"# {head} Made by `make pins` from pyproject.toml.\n" + "\n".join(lines) + "\n"
        (ROOT / f"requirements-{extra}.txt").write_text(text)
