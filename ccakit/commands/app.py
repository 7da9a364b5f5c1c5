"""`ccakit app`: the catalogue browser as a web page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

from annotated_types import Ge, Le

from ccakit.settings import CommandConfig

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass
class Config(CommandConfig):
    """Show a catalogue as a web page: search by pictures, weigh conditions, filter, go on from results."""

    catalogue: str = "catalogue"
    """What index wrote: a folder, or an address such as s3://bucket/folder."""
    run: Optional[str] = None
    """The model, if it has moved since `index` ran."""
    images: Optional[Path] = None
    """The folder of the catalogue's pictures, if it has moved."""
    address: str = "127.0.0.1"
    """The address to listen on: by default this machine's own, for its users alone. With another, such as
    0.0.0.0, all who can reach the machine and have the token see the catalogue, and nothing is encrypted."""
    port: Annotated[int, Ge(1), Le(65535)] = 8866
    """The port to listen on."""
    token: Optional[str] = None
    """What a visitor's address must hold; a new one is drawn each time by default."""


def run(config: Config) -> dict:
    """Print the page's address, and serve it until Ctrl-C."""
    import sys

    from ccakit.catalogue import app
    from ccakit.catalogue.search import open_catalogue

    app.check_voila()
    if config.token is not None and not config.token:
        raise ValueError("--token is empty: leave it out, and one is drawn")
    catalogue = open_catalogue(config.catalogue, run=config.run, images=config.images)
    catalogue.model  # noqa: B018 - a wrong model is an error now, not on the page
    app.check_port(config.address, config.port)
    token = config.token or app.new_token()
    host = f"[{config.address}]" if ":" in config.address else config.address
    url = f"http://{host}:{config.port}/?token={token}"
    if config.address not in LOCAL:
        print(
            f"note: whoever can reach {config.address} and has the token sees this catalogue", file=sys.stderr
        )
    print(f"{len(catalogue)} items of {config.catalogue}: open {url}\nCtrl-C ends the page", flush=True)
    images = None if config.images is None else str(config.images.absolute())
    uri = config.catalogue if "://" in config.catalogue else str(Path(config.catalogue).absolute())
    model = _absolute(config.run or str(catalogue.run))
    where = dict(run=model, images=images or str(catalogue.images.absolute()))
    app.serve(uri, **where, address=config.address, port=config.port, token=token)
    return {"catalogue": config.catalogue, "url": url}


def _absolute(run: str) -> str:
    """Write a folder's path whole, as the page's process starts elsewhere; a name on the hub stays."""
    return str(Path(run).absolute()) if Path(run).is_dir() else run
