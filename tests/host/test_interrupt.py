"""Signals around an output: before it has its name they end the command, after that they do not undo its success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import signal, sys, time
from tlkit.host.interrupt import check, done, held, interruptible, last_output, to_the_end
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored by what nohup starts, and tlkit leaves it so
with last_output(), interruptible():
    if "after" in sys.argv:
        done()
    for number in sys.argv[2:]:
        signal.raise_signal(int(number))
print("answered")
"""


def run(*words: object) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_before_and_after(number: signal.Signals, code: int) -> None:
    assert run("before", int(number)) == (code, "")
    assert run("after", int(number)) == (0, "answered")
    assert run("after", int(number), int(number)) == (code, "")  # whoever insists


def test_a_library_that_takes_the_signal_for_a_fault_does_not_change_how_it_ends() -> None:
    script = """
import signal
from tlkit.host.interrupt import interruptible
with interruptible():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        raise RuntimeError("the conversion failed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")


def test_nobody_cuts_short_what_clears_up() -> None:
    script = """
import os, signal, threading, time
from tlkit.host.interrupt import interruptible, to_the_end
left = list(range(50))
def clear():
    while left:
        left.pop()
        time.sleep(0.01)
try:
    with interruptible():
        print("clearing", flush=True)
        to_the_end(clear)
finally:
    print(len(left), flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None and process.stdout.readline() == b"clearing\n"
    for _ in range(3):
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate()
    assert out.strip() == b"0"
