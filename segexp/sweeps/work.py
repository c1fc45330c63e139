"""What a job's process does: train one resolved configuration, and leave a word about how it ended."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from segexp.console import say
from segexp.errors import Preempted, SegexpError
from segexp.files import write_json

LONGEST = 2000  # characters of a reason


@dataclass(frozen=True)
class End:
    """How a job's process ended.

    Attributes:
        code: its exit code; negative: the signal that killed it; None where nobody knows.
        reason: what it said last, or what the scheduler said about it.
        again: whether the machine is to blame rather than the job: it may be submitted again.
    """

    code: int | None
    reason: str = ""
    again: bool = False


def train_file(file: str | Path, allow: Sequence[str] = ()) -> int:
    """Train the resolved configuration in ``file``, print its result and return the exit code.

    Raises:
        ConfigError: the file is no resolved configuration, or one that does not fit together.
        SegexpError: whatever training raises.
    """
    from segexp.runs.summary import describe
    from segexp.runs.training import check_or_raise, train
    from segexp.sweeps.plain import command_of, read_config

    config = read_config(file)
    check_or_raise(config, allow)  # before any rank starts
    code = start_ranks(config, file, allow)
    if code is not None:
        return code
    run = train(config, command_of(file), allow)
    say(f"{run.id} is done\n{describe(run)}")
    return 0


def start_ranks(config: Any, file: str | Path, allow: Sequence[str]) -> int | None:
    """Train on several devices where the configuration asks for them; None where this process is to train itself."""
    from segexp.runs.ranks import launch

    flags = [word for prefix in allow for word in ("--allow-target", prefix)]
    return launch(config, ["train", "--config", str(file), *flags])


def work(file: str, allow: Sequence[str] = (), folder: str = "", requeues: int = 0) -> int:
    """Be a job: what submitit calls in the job's process.

    Args:
        file: the resolved configuration.
        allow: module prefixes of the user that a ``_target_`` may name.
        folder: the folder in which the sweep was started; relative paths of the configuration begin there.
        requeues: how often the scheduler may start the job again after it was stopped by SIGUSR2, its time being up.

    Returns:
        0. Otherwise the process exits with the error's code, so that the scheduler knows too.
    """
    from submitit import JobEnvironment

    environment = JobEnvironment()
    logs = Path(file).parents[2] / "logs"
    place = end_file(logs, environment.job_id, environment.global_rank)
    place.unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, stop_early)
    if folder and Path(folder).is_dir():
        os.chdir(folder)
    end = ended(file, allow)
    if end.code == Preempted.exit_code and signal.SIGUSR2.name in end.reason and requeue(environment, logs, requeues):
        sys.exit(end.code)
    write_json(place, {"code": end.code, "reason": end.reason[:LONGEST]})
    if end.code:
        sys.stdout.flush()
        sys.exit(end.code)
    return 0


def ended(file: str, allow: Sequence[str]) -> End:
    """Train, and turn whatever happens into an exit code and a reason."""
    try:
        code = train_file(file, allow)
        return End(code, "" if code == 0 else f"a rank ended with exit code {code}")
    except SegexpError as error:
        print(f"segexp: error: {error}", file=sys.stderr, flush=True)
        return End(error.exit_code, str(error))
    except KeyboardInterrupt:
        return End(130, "interrupted")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return End(code, f"exit({error.code})")
    except Exception as error:
        import traceback

        traceback.print_exc()
        return End(SegexpError.exit_code, f"{type(error).__name__}: {error}")


def stop_early(number: int, frame: FrameType | None) -> None:
    """Answer a signal that comes before training listens itself: nothing is lost by ending at once."""
    raise Preempted(f"stopped by {signal.Signals(number).name} before it had begun")


def end_file(logs: Path, key: str, rank: int = 0) -> Path:
    """Return where a job's process says how it ended."""
    return logs / f"{key}_{rank}_end.json"


def read_end(logs: Path, key: str) -> End | None:
    """Return how a job ended by its own word: that of the rank that failed first in order; None without a word."""
    ends = []
    for file in sorted(logs.glob(f"{key}_*_end.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            ends.append(End(int(content["code"]), str(content["reason"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return next((end for end in ends if end.code), ends[0] if ends else None)


def requeue(environment: Any, logs: Path, most: int) -> bool:
    """Ask the scheduler to start this job again where it was; False when it has been asked ``most`` times."""
    if environment.global_rank or not most:
        return bool(most)
    counter = end_file(logs, environment.job_id).with_suffix(".requeues")
    try:
        asked = int(counter.read_text())
    except (OSError, ValueError):
        asked = 0
    if asked >= most:
        say(f"the time was up {asked + 1} times; it is not started again")
        return False
    counter.write_text(str(asked + 1))
    say(f"the time is up; the scheduler starts this job again ({asked + 1} of {most} times)")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # with which the scheduler ends a job that it starts again
    environment._requeue(most - asked - 1)
    return True
