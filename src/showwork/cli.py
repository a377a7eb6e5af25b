"""The command line: `showwork COMMAND`, one module a command in commands/."""

import sys

import typer

from showwork.commands import ask, compare, doctor, export, power, preset, seeds
from showwork.errors import UserError

app = typer.Typer(
    help="Trains Gemma to show its work, and shows whether it did. `dvc repro` runs the pipeline; see README.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(preset.preset)
app.command()(ask.ask)
app.command()(doctor.doctor)
app.command()(compare.compare)
app.command()(power.power)
app.command()(seeds.seeds)
app.command()(export.export)


def main() -> None:
    """The command line. A mistake of the user is told on standard error without a traceback, exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"showwork: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
