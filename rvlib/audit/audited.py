"""An audit as its user holds it: its outcome, printed, shown in a notebook and written into a folder."""

import json
import pathlib
from dataclasses import asdict

from rvlib.audit import report
from rvlib.audit.outcome import Outcome
from rvlib.files import write_text


class Audit(Outcome):
    """The outcome of an audit; `print` gives its answer and main numbers, a notebook shows its tables."""

    def write(self, folder: str | pathlib.Path) -> None:
        """Write audit.json and audit.html into `folder`, which is made if it is not there."""
        contents = {"audit.json": json.dumps(asdict(self), allow_nan=False), "audit.html": report.page(self)}
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_text(pathlib.Path(folder, name), text)

    def __str__(self) -> str:
        return report.text(self)

    def _repr_html_(self) -> str:
        return report.tables(self)
