"""The page in a real browser: everything is drawn, nothing is blocked or missing."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segexp.reports.page import write_run_page
from segexp.runs import Run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")


def browse(file: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
        "--enable-logging=stderr", *options, file.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def test_page_is_drawn(make_run: Callable[..., Run], tmp_path: Path) -> None:
    from PIL import Image

    page = write_run_page(make_run())
    picture = tmp_path / "page.png"
    done = browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1000,2600")
    assert "Content Security Policy" not in done.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (2600, 1000, 3)
    notice = (np.abs(pixels - (255, 243, 214)).sum(-1) < 6).sum()
    overlay = (np.abs(pixels - (16, 18, 20)).sum(-1) < 6).sum()
    curve = (np.abs(pixels - (200, 80, 60)).sum(-1) < 30).sum()
    assert notice > 5_000 and overlay > 10_000 and curve > 200


def test_pictures_load(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """A copy of the page with a script that reports every picture's size; the page itself carries none."""
    page = write_run_page(make_run())
    probe = tmp_path / "probe.html"
    script = ("<script>addEventListener('load', () => document.title = [...document.images]"
              ".map(image => image.naturalWidth > 50).join())</script></body>")
    text = page.read_text(encoding="utf-8").replace("</body>", script)
    probe.write_text(text.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'"))
    done = browse(probe, tmp_path / "profile", "--dump-dom")
    assert "<title>true,true,true,true,true</title>" in done.stdout
