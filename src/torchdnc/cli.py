"""The command line: torchdnc train | eval | ask | study | tasks | data | demo | bench."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from torchdnc.commands.ask import ask_command
from torchdnc.commands.bench import bench_command
from torchdnc.commands.data import data_command
from torchdnc.commands.demo import demo_command
from torchdnc.commands.evaluate import eval_command
from torchdnc.commands.parsing import RefusedError
from torchdnc.commands.study import study_command
from torchdnc.commands.tasks import tasks_command
from torchdnc.commands.train import train_command
from torchdnc.training import RunError

COMMANDS = {
    "train": train_command,
    "eval": eval_command,
    "ask": ask_command,
    "study": study_command,
    "tasks": tasks_command,
    "data": data_command,
    "demo": demo_command,
    "bench": bench_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed run, 2 for bad arguments, 128 + signal."""
    try:
        try:
            return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would fail again where it flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except RefusedError as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; a run in training is saved as far as its last checkpoint", 130)


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else None
    if name in (None, "-h", "--help"):
        print("The differentiable neural computer.\n\nusage: torchdnc COMMAND [-h] ...\n")
        print("\n".join(f"  {name:8}{command.__doc__}" for name, command in COMMANDS.items()))
        print("\n  torchdnc COMMAND --help tells more; torchdnc --version prints the version.")
        return 2 if name is None else 0
    if name == "--version":
        print(f"torchdnc {version('torchdnc')}")
        return 0
    if name not in COMMANDS:
        raise RefusedError(f"there is no command {name}: the commands are {', '.join(COMMANDS)}")
    return COMMANDS[name](arguments[1:])


def _fail(sentence: object, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
