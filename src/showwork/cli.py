"""The command line: `showwork COMMAND`, with one module per command in commands/."""

import sys

import typer

from showwork.commands import ask, compare, doctor, export, params, power, preset, seeds
from showwork.errors import UserError

app = typer.Typer(
    help="Train Gemma to reason step by step, and compare the results. `dvc repro` runs the pipeline; see README.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(preset.preset)
app.command()(params.params)
app.command()(ask.ask)
app.command()(doctor.doctor)
app.command()(compare.compare)
app.command()(power.power)
app.command()(seeds.seeds)
app.command()(export.export)


def main() -> None:
    """Runs the command line. A UserError is printed on standard error without a traceback, exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"showwork: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
