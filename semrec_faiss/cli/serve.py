"""serve: an index over HTTP, and the keys of who may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.extras import needs_extra
from semrec_faiss.cli.groups import Group
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, ray_option, set_option
from semrec_faiss.cli.printing import say

DEFAULT = "run"


class ServeGroup(Group):
    """`semrec serve INDEX` is short for `semrec serve run INDEX`."""

    group_class = Group
    """Groups in it have no such default."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command's name for the arguments of `run`."""
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return DEFAULT, self.commands[DEFAULT], args

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand flags on to `run` where no command is named."""
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=ServeGroup, epilog="Example: semrec serve indexes/demo --port 8080")
def serve() -> None:
    """Answer questions over HTTP: `semrec serve INDEX`, short for `semrec serve run INDEX`."""


@serve.command(DEFAULT, epilog="Example: semrec serve run indexes/demo --port 8080")
@click.argument("index", required=False, type=FilePath(readable=False))
@click.option("--config", type=FilePath(), help="A YAML file; flags override it.")
@click.option("--host", help="Where to listen; others than this machine need --keys. [default: 127.0.0.1]")
@click.option("--port", type=WholeNumber(), help="0 picks a free one. [default: 8080]")
@click.option("--keys", type=FilePath(), help="A file that `semrec serve keys add` writes.")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Let pages of this origin ask; repeatable.")
@click.option("--tls-certificate", type=FilePath(), help="A PEM file, for HTTPS; read again on SIGHUP.")
@click.option("--tls-key", type=FilePath(), help="The PEM file of its key.")
@click.option("--max-k", type=WholeNumber(), help="Titles in one answer, at most. [default: 1000]")
@click.option("--max-queries", type=WholeNumber(), help="Queries in one request, at most. [default: 1000]")
@click.option("--max-results", type=WholeNumber(), help="Queries × k of one request, at most. [default: 250000]")
@click.option("--max-body-mb", type=WholeNumber(), help="The largest body. [default: 16]")
@click.option("--max-waiting", type=WholeNumber(), help="Questions that may wait; others get a 429. [default: 1000]")
@click.option("--deadline-ms", type=float, help="Time after which the answer is a 504. [default: 10000]")
@click.option(
    "--watch-seconds", type=float, help="Time between two looks for a new generation; 0 for none. [default: 1]"
)
@click.option("--grace-seconds", type=float, help="How long a shutdown waits at most. [default: 20]")
@click.option("--threads", type=WholeNumber(), help="Threads for filters, texts and explanations. [default: 16]")
@click.option(
    "--access-log/--no-access-log", default=None, help="One line of JSON per request on stderr. [default: yes]"
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="The lowest level that is logged. [default: info]",
)
@ray_option
@click.option("--replicas", type=WholeNumber(), help="With --ray: actors per shard; one suffices. [default: 1]")
@click.option("--partial", is_flag=True, default=None, help="With --ray: answer without lost shards, and say so.")
@click.option("--workers", type=WholeNumber(), help="Processes that answer; on a GPU one more owns it. [default: 1]")
@click.option(
    "--owner",
    type=click.Choice(["auto", "always", "never"]),
    hidden=True,
    help="Whether a process of its own owns the device, for measuring.",
)
@click.option("--fixed-body", type=WholeNumber(), hidden=True, help="Answer with this many bytes, for measuring.")
@set_option
def run(config: Path | None, settings: tuple[str, ...], **flags: Any) -> None:
    """Answer questions about INDEX over HTTP until SIGTERM or Ctrl-C; a page to look at stands at /.

    A new generation of INDEX is taken as soon as it is published, without losing a request. With --ray the shards of
    INDEX are served by the machines of a cluster, and asked from here.
    """
    with needs_extra("serve"):
        from semrec_faiss.serve.workers.supervising import run as run_service
    from semrec_faiss.serve.settings import read_settings

    run_service(read_settings(config, flags | {"settings": settings}), lambda address: say(f"listening at {address}"))


@serve.group(epilog="Example: semrec serve keys add website --keys keys.txt")
def keys() -> None:
    """Manage API keys; a file holds their hashes."""


@keys.command(epilog="Example: semrec serve keys add website --keys keys.txt")
@click.argument("name")
@click.option("--keys", "path", required=True, type=FilePath(), help="The file; made where there is none.")
@click.option(
    "--role", default="read", show_default=True, type=click.Choice(["read", "admin"]), help="admin may also reload."
)
def add(name: str, path: Path, role: Any) -> None:
    """Make a key for NAME and print it, this once; a running service reads the file again on SIGHUP."""
    from semrec_faiss.serve.keys import add_key

    click.echo(add_key(path, name, role))
