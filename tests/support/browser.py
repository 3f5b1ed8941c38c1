"""Headless Chromium for tests: opens pages in a frame, takes steps on them, and says what was found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# One page drives all others in a frame, so that a single browser suffices; what it finds is printed as JSON.
HARNESS = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="frame" width="%(width)d" height="900"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("frame"), found = {};
const open = (url) => new Promise((done) => { frame.onload = () => done(frame.contentDocument); frame.src = url; });
const settled = () => new Promise((done) => setTimeout(done, 100));
const input = (field, value) => { field.value = value; field.dispatchEvent(new Event("input", {bubbles: true})); };
const follow = (link) => new Promise((done) => { frame.onload = () => done(frame.contentDocument); link.click(); });
(async () => {
  for (const page of %(pages)s) {
    const doc = await open(page), root = doc.documentElement;
    const scripted = !doc.querySelector(".needs-script[hidden]");
    found[page] = {title: doc.title, overflow: root.scrollWidth - root.clientWidth, scripted};
  }
  %(steps)s
})().catch((error) => { found.error = String(error); })
  .finally(() => { document.getElementById("found").textContent = JSON.stringify(found); });
</script>"""


def browse(folder: Path, pages: list[str], steps: str = "", width: int = 1280) -> tuple[dict, list[str]]:
    """Open pages in a frame of some width, take the steps, and return what was found and the console's errors."""
    harness = folder / "harness.htm"
    harness.write_text(HARNESS % {"pages": json.dumps(pages), "steps": steps, "width": width})
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom", harness.as_uri()]
    command += [f"--user-data-dir={folder / 'browser'}"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
