"""`cascade.runs.interrupt`: the first signal asks, the second one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from cascade.runs.interrupt import Interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks(number, code):
    before = signal.getsignal(number)
    said = []
    with Interrupt(lambda: said.append("stopping"), lambda: None) as interrupt:
        assert not interrupt.stopped
        os.kill(os.getpid(), number)
        assert interrupt.stopped
    assert (said, interrupt.exit_code) == (["stopping"], code)
    assert signal.getsignal(number) is before


def test_the_second_one_ends_the_process_whatever_is_running():
    code = (
        "import os, signal, sys, threading, time\n"
        "from cascade.runs.interrupt import Interrupt\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"  # would keep an orderly exit waiting
        "with Interrupt(lambda: None, lambda: print('terminal given back', flush=True)):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "still here\nterminal given back\n")


def test_on_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with Interrupt(lambda: None, lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
