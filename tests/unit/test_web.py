"""The page's server where no browser shows it."""

import signal
import threading
import time

import pytest

from qilin.ask import Answered
from qilin.errors import QilinError
from qilin.web import open_server


def test_an_interrupt_that_another_thread_receives_ends_the_wait() -> None:
    """As one that comes just before the wait begins: neither ends a wait without an end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    other = threading.Thread(target=time.sleep, args=(3,), daemon=True)
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        server.ask("late")

    def unable(question: str) -> Answered:
        raise QilinError(question)

    late = threading.Timer(10, ask)  # where nothing else ends the wait, this does, and the test fails
    late.daemon = True
    try:
        with open_server("about", 0) as server:
            other.start()
            threading.Timer(0.5, signal.pthread_kill, (other.ident, signal.SIGINT)).start()
            late.start()
            with pytest.raises(KeyboardInterrupt):
                while not asked.is_set():
                    server.answer(unable)
    finally:
        late.cancel()
        signal.signal(signal.SIGINT, before)
    assert not asked.is_set()
