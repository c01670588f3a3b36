"""Runs a command that must not outlive who asked for it: `python keeper.py FOLDER COMMAND...`.

When standard input ends, because it was closed or because the process at its other end is gone, however it was killed,
the command and all that it has started are killed. FOLDER is its own, and goes with it. Standard library only: it runs
by itself, outside the package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def main(folder: str, *command: str) -> int:
    """The command's own exit code; 128 and the signal's number where one ended it, as a shell has it."""
    # A group of its own: what it starts is in it too.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_watch, args=(process.pid,), daemon=True).start()
    code = process.wait()
    _kill(process.pid)
    shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _watch(group: int) -> None:
    while os.read(0, 1024):
        pass
    _kill(group)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))
