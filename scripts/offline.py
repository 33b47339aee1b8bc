"""Pack the built book into one zip that opens without a server: python scripts/offline.py [file, _build/offline.zip].

A browser loads no module from a file, only scripts. So in the packed pages one script, `_static/offline.js`, holds the
text of every ES module and starts those that a page names, each from memory; the rest of the pages is as built.
"""

import json
import pathlib
import re
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
HTML = ROOT / "_build/html"
LOADER = ROOT / "scripts/templates/offline.js"
NAME = "what-makes-a-reward-model-a-good-teacher"


def pack(file: str | pathlib.Path = ROOT / "_build/offline.zip") -> pathlib.Path:
    """Copy the pages, put the modules into one script, and pack all that into `file`, which is returned."""
    file = pathlib.Path(file)
    with tempfile.TemporaryDirectory() as folder:
        book = pathlib.Path(folder) / NAME
        shutil.copytree(HTML, book, ignore=shutil.ignore_patterns("reports", "*.log", "objects.inv"))
        static = book / "_static"
        sources = {path.relative_to(static).as_posix(): path.read_text("utf-8") for path in static.rglob("*.mjs")}
        loader = LOADER.read_text("utf-8").replace(
            "SOURCES", json.dumps(sources, ensure_ascii=False).replace("</", "<\\/")
        )
        (static / "offline.js").write_text(loader, encoding="utf-8")
        script = re.compile(r'<script\b[^>]*\bsrc="([^"]*?_static/)([\w/-]+\.mjs)[^"]*"[^>]*></script>')
        ahead = re.compile(
            r'<link rel="(?:module)?preload"[^>]*>\n?'
        )  # which a browser asks a host for, and a file is none
        for page in book.rglob("*.html"):
            text = ahead.sub("", page.read_text(encoding="utf-8"))
            if scripts := script.findall(text):
                modules = " ".join(name for _, name in scripts)
                start = f'<script src="{scripts[0][0]}offline.js" data-modules="{modules}">'
                text = script.sub("", text).replace("</head>", f"{start}</script>\n</head>", 1)
                page.write_text(text, encoding="utf-8")
        return pathlib.Path(shutil.make_archive(str(file.with_suffix("")), "zip", folder))


if __name__ == "__main__":
    print("Packed", pack(*sys.argv[1:2]), "- unpack it and open index.html")
