"""What click refuses, told with what to type instead, where the command itself says so."""

from __future__ import annotations

import re

import click

from semrec_faiss.cli.numbers import UnfitNumber

_LEFT_OVER = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)

_LONGEST = 60
"""Characters that are repeated to somebody who has just typed them."""


def fix_of(error: click.ClickException) -> str | None:
    """Return what to type instead: another number, an option, or quotes; None where that is not known."""
    if isinstance(error, UnfitNumber):
        return error.fix
    left_over = _LEFT_OVER.match(error.format_message())
    context = error.ctx if isinstance(error, click.UsageError) else None
    if left_over is None or context is None or len(left_over[1]) > _LONGEST:
        return None
    if any("--user" in parameter.opts for parameter in context.command.params):
        return " ".join(f"--user {user}" for user in left_over[1].split())
    arguments = [each.name for each in context.command.params if isinstance(each, click.Argument) and each.name]
    texts = [text for name in arguments if isinstance(text := context.params.get(name), str)]
    return f'what has blanks stands in quotes: "{texts[-1]} {left_over[1]}"' if texts else None
