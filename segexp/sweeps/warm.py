"""The first import of the warm process: it lets go of the terminal, and of the pipe, of whoever started it.

Jobs may go on after their controller; ``segexp train -m ... | tee log`` ends with it all the same.
"""

import os
import sys


def let_go() -> None:
    """Begin a session of its own, with nothing to read from or print to."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    let_go()
