"""The catalogue browser as a web page, by Voilà: one notebook of one cell, and nothing else is served.

A reader of the page moves widgets; no code comes from the page (Voilà takes messages of widgets only). Files
are served from no folder: pictures come through the widgets, and those of the catalogue only.
"""

from __future__ import annotations

import html
import json
import os
import secrets
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from ccakit.errors import DataError, in_words

SETTINGS = "CCAKIT_APP"  # the environment variable that tells the page's process what to open
MAX_MESSAGE = 64 << 20  # bytes of an upload, above which the server ends the connection; smaller: an error
IDLE = 3600  # seconds after which the process of a page that was closed is ended
CELL = "from ccakit.catalogue.app import page\n\npage()"


def check_voila() -> None:
    """Raise ValueError, with the remedy, where Voilà is not installed."""
    try:
        import voila  # noqa: F401
    except ImportError:
        raise ValueError("the page needs Voilà: pip install 'ccakit[app]'") from None


def check_port(address: str, port: int) -> None:
    """Raise DataError where the address cannot be listened on."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        problem = f"cannot be listened on ({error.strerror or error})"
        raise DataError(f"{address}:{port}", problem, "Give another --port or --address.") from None


def serve(uri: str, *, run: str | None, images: str | None, address: str, port: int, token: str) -> None:
    """Serve the browser of a catalogue until the process is interrupted.

    Each page that is opened has a process of its own, which ends an hour after the page was closed.
    """
    from traitlets.config import Config
    from voila.app import Voila

    os.environ[SETTINGS] = json.dumps({"uri": uri, "run": run, "images": images})
    with TemporaryDirectory(prefix="ccakit-app-") as folder:
        notebook = Path(folder) / "catalogue.ipynb"
        notebook.write_text(json.dumps(_notebook()), encoding="utf-8")
        config = Config()
        config.Voila.update(ip=address, port=port, port_retries=0, token=token, open_browser=False)
        config.Voila.log_level = "ERROR"
        config.Voila.tornado_settings = {"websocket_max_message_size": MAX_MESSAGE}
        config.VoilaConfiguration.update(file_allowlist=[], show_tracebacks=False)
        config.VoilaExecutor.timeout = 600
        config.MultiKernelManager.default_kernel_name = "python3"
        config.MappingKernelManager.update(cull_idle_timeout=IDLE, cull_interval=300)
        app = Voila(config=config)
        app.initialize([str(notebook)])
        app.start()


def new_token() -> str:
    """Draw a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def page() -> None:
    """Display the browser of the catalogue that `serve` names; an error is shown in its place."""
    import ipywidgets as widgets
    from IPython.display import display

    from ccakit.catalogue.page import CatalogueBrowser
    from ccakit.catalogue.search import open_catalogue

    settings = json.loads(os.environ[SETTINGS])
    try:
        catalogue = open_catalogue(settings["uri"], run=settings["run"], images=settings["images"])
        display(CatalogueBrowser(catalogue))
    except (ValueError, OSError) as error:
        text = html.escape(in_words(error))
        display(widgets.HTML(f"<b style='color:#b00020'>The catalogue cannot be opened.</b> {text}"))


def _notebook() -> dict:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cell = {"cell_type": "code", "execution_count": None, "id": "page", "metadata": {}, "outputs": []}
    return {
        "cells": [{**cell, "source": CELL}],
        "metadata": {"kernelspec": kernel, "title": "Catalogue"},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
