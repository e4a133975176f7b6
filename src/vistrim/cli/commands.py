"""The class of all commands, which refuses options given twice where both may be meant."""

from typing import Any

from typer.core import TyperCommand

from vistrim.cli.error_lines import WrongUsageError

ONE_PER_COMMAND = ("--method", "--model", "--data", "--tasks", "--budget")
"""What a command is about. The parser would take the last one in silence, as is usual for other options."""


class Command(TyperCommand):
    """A command that refuses a second method, model, file of questions, list of tasks or budget."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Returns
        -------
        list of str
            Arguments that are left over.

        Raises
        ------
        WrongUsageError
            If such an option, unless the command takes several, is given more than once.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        names = [param.opts[0] for param in given if not getattr(param, "multiple", False)]
        for name in ONE_PER_COMMAND:
            if names.count(name) > 1:
                advice = ", or compare several methods with `vistrim eval`" if name == "--method" else ""
                raise WrongUsageError(f"{name} is given {names.count(name)} times: give it once{advice}")
        return super().parse_args(ctx, args)
