"""A page opened in headless Chromium: its lines on the console, and the result of a script in it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def opened(page: Path, script: str, folder: Path) -> tuple[list[str], dict]:
    """The lines that `page` writes to the console, and what the JavaScript function body `script` returns in it.

    `folder` takes the copy with the script and the browser's profile. Skips if no Chromium is installed.
    """
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the path")
    copy = folder / "page.html"
    ask = f"window.addEventListener('load', async () => {{ const found = await (async () => {{ {script} }})(); \
document.title = 'FOUND' + JSON.stringify(found) + 'FOUND'; }});"
    copy.write_text(page.read_text().replace("</head>", f"<script>{ask}</script></head>", 1))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    run = subprocess.run(
        [chromium, *options, "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = re.search(r"FOUND(.*)FOUND", run.stdout)
    assert found, run.stderr
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line], json.loads(html.unescape(found[1]))
