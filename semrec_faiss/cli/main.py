"""The ``semrec`` command: its subcommands are imported when they are called, so that help is immediate."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module

import click

from semrec_faiss._version import __version__

# name: (module, attribute, one line of help)
COMMANDS = {
    "demo": ("demo", "demo", "Build the demo index and show what it finds."),
    "doctor": ("doctor", "doctor", "Check Python, FAISS, GPUs and optional packages; say what to install."),
    "build": ("index.generations", "build", "Build an index from a config file and save it."),
    "update": ("index.update", "update", "Add, change and remove titles and users of an index."),
    "append-seen": ("index.update", "append_seen", "Add to an index what its users have seen since."),
    "compact": ("index.update", "compact", "Build an index anew from what it holds."),
    "info": ("index.generations", "info", "Show what an index holds and how it was built."),
    "verify": ("index.generations", "verify_index", "Hash every file of an index and replay its known answers."),
    "warm": ("index.warm", "warm", "Compile and read what an index's first questions need."),
    "rollback": ("index.generations", "rollback", "Return an index to its previous generation."),
    "bundle": ("index.bundle", "bundle", "Pack an index into one file, to copy it to another machine."),
    "unbundle": ("index.bundle", "unbundle", "Unpack a bundled index; verify all of it first."),
    "similar": ("asking.search", "similar", "Find titles similar to a title."),
    "search": ("asking.search", "search", "Find titles by a text that says what is looked for."),
    "recommend": ("asking.search", "recommend", "Recommend titles to users."),
    "similar-users": ("asking.search", "similar_users", "Find users of similar taste."),
    "explain": ("asking.search", "explain", "Say why a title is recommended to a user."),
    "serve": ("serve", "serve", "Answer questions over HTTP, with a page to look at."),
    "evaluate": ("measure.evaluate", "evaluate", "Measure how good recommendations are, beside three baselines."),
    "dataset": ("data.dataset", "dataset", "Check, make, embed, learn, import or export a data folder."),
    "compare": ("measure.compare", "compare", "Run the guide's five tests on CPU and GPU; write a report."),
    "memory": ("measure.memory", "memory", "Predict what an index takes in memory, and how many titles fit."),
    "bench": ("bench.group", "bench", "Measure speed and memory beside raw FAISS; write JSON."),
    "sweep": ("measure.sweep", "sweep", "Measure a grid of indexes: recall, speed, memory; resumable."),
    "pick": ("measure.pick", "pick", "Choose the best index of a sweep, and say why the others lost."),
    "tune": ("measure.tune", "tune", "Find the least nprobe, efSearch or refine that reaches a recall."),
    "report": ("measure.report", "report", "Make the page, the pictures and the table of a sweep."),
    "check-regression": ("measure.report", "check_regression", "Fail when a sweep is worse than an earlier one."),
}


class LazyGroup(click.Group):
    """A command group that knows its commands' names and help, and imports one only when it runs."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; click would end with 1 where the reader of a pipe has closed it."""
        from semrec_faiss.cli.process.exit import end_of_pipe

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return end_of_pipe()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"semrec_faiss.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the nearest known one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `semrec demo`. Every command has --help with an example.",
)
@click.version_option(__version__, "-V", "--version", prog_name="semrec")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Vector search for media recommenders, on FAISS: similar titles, recommendations, saved indexes."""


def run() -> None:
    """Run ``semrec`` and end the process with the exit code of the result."""
    from semrec_faiss.cli.process.exit import end_at_once_if_interrupted, exit_code_of
    from semrec_faiss.cli.process.streams import open_closed_streams

    open_closed_streams()
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    as_json = "--json" in arguments
    command = partial(cli.main, args=arguments, prog_name="semrec", standalone_mode=False)
    code = exit_code_of(command, arguments, debug=debug, as_json=as_json)
    end_at_once_if_interrupted(code)
    sys.exit(code)
