"""Resolve pyproject.toml's ranges into pinned requirements for Python 3.11 and 3.12 on every system: python scripts/pin.py [--upgrade].

Without --upgrade every package keeps the version it has, and only what is new in pyproject.toml is resolved.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADS = {
    "book": "To read and play: build the book, open its notebooks.",
    "test": "To run the tests, beside requirements-book.txt.",
    "lm": "To run the language models, beside requirements-book.txt.",
}
# torch chooses these itself: its CUDA wheels on Linux need them at versions that it pins, its CPU wheels do not.
FROM_TORCH = re.compile(r"^(cuda|nvidia|triton)-?")


def resolve(extras, upgrade):
    """Pinned lines for some of pyproject.toml's extras, all that they require in turn included."""
    present = [f"--constraint={path}" for path in ROOT.glob("requirements-*.txt") if not upgrade]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version=3.11", "--no-header",
               "--annotation-style=line", "--quiet", *present, *(f"--extra={extra}" for extra in extras)]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split("  #")[0].rstrip() for line in lines if not FROM_TORCH.match(line)]


done = set()
for extra, head in HEADS.items():
    lines = [line for line in resolve(["book", *({extra} - {"book"})], "--upgrade" in sys.argv) if line not in done]
    done |= set(lines)
    pathlib.Path(ROOT, f"requirements-{extra}.txt").write_text(f"# {head} Made by `make pins` from pyproject.toml.\n" + "\n".join(lines) + "\n")
