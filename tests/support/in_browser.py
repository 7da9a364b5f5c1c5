"""Chromium and the servers that it visits: JupyterLab with a notebook, or a command that serves a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import ROOT

SHOTS = ROOT / "runs" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOLDERS = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
WAIT = 180  # seconds, for what takes a few on a machine that has nothing else to do
BYTES = """async (element) => {
    const data = new Uint8Array(await (await fetch(element.src)).arrayBuffer());
    return btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));
}"""
RUNNING = (
    '[...document.querySelectorAll(".jp-InputPrompt")].some((prompt) => prompt.textContent.includes("*"))'
)
CUT = """(root) => [...root.querySelectorAll("button, label, .widget-label, .cca-text")]
    .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1 && !e.classList.contains("cca-thumb"))
    .map((e) => e.textContent)"""


@contextmanager
def chromium() -> Iterator:
    """Chromium, headless; a skip and a warning where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if path is None or sync_playwright is None:
        missing = f"Chromium ({', '.join(NAMES)}) is" if sync_playwright else "playwright is"
        missing = f"{missing} not installed"
        warnings.warn(f"{missing}: what it shows is NOT tested in a browser", stacklevel=1)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def jupyterlab(home: Path, notebook: str) -> Iterator[str]:
    """JupyterLab's address; its folder `home` holds a copy of one of the project's notebooks."""
    (home / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / notebook, home / "notebooks")
    for name in ("data", "runs", "figures"):
        (ROOT / name).mkdir(exist_ok=True)
        (home / name).symlink_to(ROOT / name)
    port, token = free_port(), base64.b16encode(os.urandom(12)).decode()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={home}",
    ]
    with served(command, port, home):
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook}?token={token}&reset"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(command: list[str], port: int, home: Path) -> Iterator[None]:
    """Run a command that serves a page, until the block ends; its log is in `home`."""
    log = home / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=_environment(home), stdout=out, stderr=subprocess.STDOUT, cwd=home
        )
    try:
        _wait_for_port(port, server, log)
        yield
    finally:
        _stop(server)


def _environment(home: Path) -> dict[str, str]:
    """The smoke preset, this tree's ccakit, and no settings but our own: no question about news."""
    settings = home / "settings"
    news = settings / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    own = {f"JUPYTER_{name}": str(home / name) for name in FOLDERS}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **own,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "CCAKIT_PRESET": "smoke",
        "PYTHONPATH": path,
    }


def _wait_for_port(port: int, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server does not answer:\n{log.read_text(encoding='utf-8')[-3000:]}")


def _stop(server: subprocess.Popen) -> None:
    """End the server, which ends its kernels."""
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(30)


def run_all_cells(page, tries: int = 10) -> None:
    """Through the menu; again, where the kernel was not ready: then JupyterLab drops what it was told."""
    for _ in range(tries):
        page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
        for _ in range(50):
            page.wait_for_timeout(100)
            if page.evaluate(RUNNING):
                return
    raise AssertionError("JupyterLab does not run the cells")


def decoded_bytes(image) -> bytes:
    """The file's bytes of an img element."""
    return base64.b64decode(image.evaluate(BYTES))
