"""The commands. Each is one call; what it needs is imported inside it, so that `--help` costs next to nothing."""

import errno
import io
import os
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from aigc_lab import __version__
from aigc_lab.cli import output
from aigc_lab.cli.options import app
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import imports, torchrun, visible

__all__ = ["app", "main"]

# Characters of an error.
_LONGEST = 2000

# What the parser of the command line raises. Which module it comes from depends on the version of typer.
_Refused: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

# In the order in which --help lists their commands.
for _ in ("training", "models", "scores", "verdicts", "inspect", "figures", "maintenance"):
    import_module(f"aigc_lab.cli.{_}")


def main() -> None:
    """The console script. A user's mistake is one line on stderr and exit code 2; work that failed, exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow must not end a command on a terminal without Unicode
    visible.guard()
    imports.end_quickly()
    if torchrun.place().rank:
        from aigc_lab.training.follower import attend

        sys.exit(attend())
    try:
        _run()
    finally:
        if torchrun.size() is not None:
            torchrun.end()  # the others wait for a training that may never have begun


def _run() -> None:
    try:
        with output.reserved("--json" in sys.argv):
            try:
                code = app(prog_name="aigc-lab", standalone_mode=False)
            finally:
                sys.stdout.flush()
    except _Refused as error:
        _refuse(error)
    except typer.Abort:  # a question that was not answered
        _end("nothing was done", 1)
    except UsageError as error:
        _end(error, 2)
    except Failure as error:
        _end(error, 1)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        # The reader has left. Python would complain once more on its way out, so it gets somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except BaseException as error:
        _blame(error)
        if isinstance(error, OSError):
            from aigc_lab.host.files import denied

            message = denied(error)
            if message is not None:
                _end(message, 2 if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1)
        raise
    if code == 130:  # typer's word for Ctrl-C
        _end("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _blame(error: BaseException) -> None:
    """Ends the command when a line of a user's file has raised the error."""
    plugins = sys.modules.get("aigc_lab.plugins")  # what was not imported has loaded no file
    message = plugins.raised(error) if plugins is not None else None
    if message is not None:
        _end(f"{message}; 'aigc-lab check' tests the file", 2)


def _refuse(error: Any) -> NoReturn:
    """Ends for a command line that the parser does not understand: in one line too, unless help was meant."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    path = f" (see {error.ctx.command_path} --help)" if getattr(error, "ctx", None) else ""
    _end(f"{error.format_message().rstrip('.')}{path}", 2)


def _end(message: object, code: int) -> NoReturn:
    line = visible.line(output.as_typed(" ".join(str(message).split())))
    if len(line) > _LONGEST:  # what was typed is quoted, and may be a page; what is wrong with it stands at the end
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(line if code == 130 else f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _version(requested: bool) -> None:
    if requested:
        print(f"aigc-lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...
