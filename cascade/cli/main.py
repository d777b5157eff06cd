"""Starts the command that the arguments name, and turns what it raises into a message and an exit code.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 some photos failed,
2 the command cannot be carried out as given, 70 a fault in cascade itself, 130 Ctrl-C.

Commands live in `cascade.cli` and are imported when they are used, so that `cascade classify` does not
wait for what only training needs.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from cascade import __version__
from cascade.errors import CascadeError

__all__ = ["cli", "main"]

#: Every command, in the order of --help, and where it is.
_COMMANDS: Final = {
    "classify": "cascade.cli.classify:classify",
    "serve": "cascade.cli.serve:serve",
    "review": "cascade.cli.review:review",
    "suggest": "cascade.cli.suggest:suggest",
    "info": "cascade.cli.info:info",
    "demo": "cascade.cli.demo:demo",
    "audit": "cascade.cli.audit:audit",
    "train": "cascade.cli.train:train",
    "calibrate": "cascade.cli.calibrate:calibrate",
    "learn": "cascade.cli.learn:learn",
    "compare": "cascade.cli.compare:compare",
    "evaluate": "cascade.cli.evaluate:evaluate",
    "verify": "cascade.cli.verify:verify",
    "export": "cascade.cli.export:export",
    "benchmark": "cascade.cli.benchmark:benchmark",
    "undo": "cascade.cli.undo:undo",
}

#: What a process that is ended by a broken pipe reports to its shell: 128 + SIGPIPE.
_BROKEN_PIPE: Final = 141
_INTERRUPTED: Final = 130
#: EX_SOFTWARE of sysexits.h: a fault of cascade itself.
_INTERNAL: Final = 70
_COMPLETION_VARIABLE: Final = "_CASCADE_COMPLETE"
_DEBUG_VARIABLE: Final = "CASCADE_DEBUG"


class _LazyGroup(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from cascade.cli.options import did_you_mean

            ctx.fail(f"No such command {name!r}.{did_you_mean(name, _COMMANDS)}")
        return super().resolve_command(ctx, args)


_EPILOG = """
\b
Exit codes:
  0    done
  1    done, but some photos failed; their rows say why
  2    the command cannot be carried out as given; one line says why
  70   a fault in cascade itself
  130  stopped with Ctrl-C (143: with SIGTERM); rows so far are kept

\b
Environment:
  CASCADE_BUNDLE  folder of the bundle to use where --bundle is not given
  CASCADE_CACHE   folder where the choice of --variant auto is kept; otherwise that of the system for
                  caches, or one of your own in the temporary folder. If none can be written, auto is exact
  CASCADE_DEBUG   1 shows the traceback of a fault in cascade itself

\b
Completion of commands, options and their values in your shell, put into its start-up file:
  bash: eval "$(_CASCADE_COMPLETE=bash_source cascade)"
  zsh:  eval "$(_CASCADE_COMPLETE=zsh_source cascade)"
  fish: _CASCADE_COMPLETE=fish_source cascade | source
"""


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="cascade", message="%(prog)s %(version)s")
def cli() -> None:
    """Say what photos show: a label, a broader label, or "unknown", with calibrated confidence."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: None takes those of the process.
    """
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    # What Pillow remarks about metadata would stand among the rows; what matters is in a row's warnings.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments), prog_name="cascade", standalone_mode=False
        )
        sys.stdout.flush()
    except click.exceptions.Abort:
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return 2
    except CascadeError as error:
        return _complain(str(error))
    except SystemExit:
        # click ends the process itself in two cases: it has served a shell's completion, or the reader of
        # our output is gone (BrokenPipeError); then it has also silenced the last flush.
        if _COMPLETION_VARIABLE in os.environ:
            raise
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}")
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE):
            traceback.print_exc()
        _complain(
            f"a fault in cascade itself: {type(error).__name__}: {_one_line(error)}; "
            f"please report it with the output of the same command under {_DEBUG_VARIABLE}=1"
        )
        return _INTERNAL
    return code if isinstance(code, int) else 0


def _complain(text: str) -> int:
    click.echo(f"cascade: error: {text}", err=True)
    return 2


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
