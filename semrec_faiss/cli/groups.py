"""A group of commands, such as `semrec dataset`, whose --help tells what each does in a whole sentence."""

from __future__ import annotations

import click

ANY_LENGTH = 10_000


class Group(click.Group):
    """Where click would cut each sentence at the width of a line, this breaks lines."""

    group_class: type[click.Group] | type[type] = type
    """Groups in it are of its kind."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the first sentence of its help."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(ANY_LENGTH))
                    for name, command in sorted(self.commands.items())
                    if not command.hidden
                ]
            )
