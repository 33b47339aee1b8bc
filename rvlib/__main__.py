"""`python -m rvlib` is `rvlib`, for launchers that take a module."""

from rvlib.cli import main

main()
