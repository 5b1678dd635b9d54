"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
count_option = click.option(
    "-k", "--count", default=10, show_default=True, type=click.IntRange(min=1), help="Titles to return."
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as index.search.nprobe=32."
)
index_argument = click.argument("index", type=click.Path(path_type=Path))
