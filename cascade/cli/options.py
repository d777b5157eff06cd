"""Defines the options that several commands share, so that each is explained the same everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cascade.cli import completion
from cascade.inference.routing import ASK_MODES

__all__ = [
    "Choice",
    "ask_option",
    "budget_option",
    "bundle_option",
    "command",
    "did_you_mean",
    "label_map_option",
    "max_error_option",
    "model_options",
    "operating_point_option",
    "out_of_scope_option",
    "promised_error_option",
    "quiet_option",
    "replace_option",
    "together",
    "variant_option",
]


class Choice(click.Choice[str]):
    """One of a few values; a wrong one gets a question about the value that was probably meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value; raises `click.BadParameter` for one that is not among the choices."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            question = did_you_mean(str(value), self.choices)
            raise click.BadParameter(error.message + question, ctx=ctx, param=param) from None


Command = TypeVar("Command", bound=Callable[..., Any])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to put behind a message, about the known word that is closest; "" if none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def command(function: Callable[..., Any]) -> click.Command:
    """Make a command that has ``-h`` as well, with and without the group above it.

    click remembers the help option that it made first, so the group's settings alone do not do.
    """
    return click.command(context_settings={"help_option_names": ["-h", "--help"]})(function)


def together(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return one decorator that adds several options; --help shows them in this order."""

    def add(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


bundle_option: Final = click.option(
    "--bundle",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the bundle to use.  [default: $CASCADE_BUNDLE, else the shipped one]",
)

ask_option: Final = click.option(
    "--ask",
    type=Choice(ASK_MODES),
    default="router",
    show_default=True,
    help="Which experts are asked: those that the router expects to help, none, or all.",
)

#: --out-of-scope: photos that teach a bundle what it does not know.
out_of_scope_option: Final = click.option(
    "--out-of-scope",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Photos that are none of the labels, as KIND/FILE or {train,calibration}/KIND/FILE: the bundle "
    "answers photos like them less often, and the less often the smaller --max-error is.",
)

label_map_option: Final = click.option(
    "--label-map",
    metavar="FOLDER=LABEL",
    multiple=True,
    help="Photos of this folder show that label, e.g. livingroom=living_room; may be given several times,"
    " or name a text file of such lines.",
)

operating_point_option: Final = click.option(
    "--operating-point",
    metavar="NAME",
    default="default",
    shell_complete=completion.operating_points,
    show_default=True,
    help="What decides between a label, a broader one and unknown; see `cascade info`.",
)

max_error_option: Final = click.option(
    "--max-error",
    metavar="SHARE",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="Promise that at most this share of the answers is wrong, e.g. 0.05; what cannot be answered"
    " within it is a broader label or unknown. Takes the place of --operating-point.",
)

budget_option: Final = click.option(
    "--budget",
    metavar="SHARE",
    type=click.FloatRange(0.0, 1.0),
    help="How much to spend on experts: from 0, the general model alone, to 1, ask whenever it may help;"
    " see `cascade info`.  [default: that of the operating point]",
)

variant_option: Final = click.option(
    "--variant",
    metavar="NAME",
    default="auto",
    shell_complete=completion.variants,
    show_default=True,
    help="Graphs to run: exact, int8 if the bundle has it, or auto: the fastest that computes correctly"
    " on this machine; see `cascade verify`.",
)

#: Every option that decides how photos are classified.
model_options: Final = together(
    bundle_option,
    ask_option,
    operating_point_option,
    max_error_option,
    budget_option,
    click.option(
        "--top-k",
        metavar="N",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        help="How many labels with their probabilities each row lists.",
    ),
    click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        help="Photos are worked on by this many threads.  [default: one per core]",
    ),
    variant_option,
)

#: --max-error of the commands that make a bundle.
promised_error_option: Final = click.option(
    "--max-error",
    metavar="SHARE",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of wrong answers that the default operating point may give.",
)

#: --replace of the commands that make a bundle.
replace_option: Final = click.option(
    "--replace", is_flag=True, help="Replace the bundle that --out holds; without this it is refused."
)

quiet_option: Final = click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
