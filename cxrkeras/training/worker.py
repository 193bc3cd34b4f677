"""Calls a function in its own process, which releases all its memory when it ends."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from cxrkeras.errors import InputError
from cxrkeras.progress import SILENT, Advance, Progress
from cxrkeras.tensorflow_import import import_tensorflow

_REPORT_SECONDS = 0.2  # between messages about the steps of a phase
_RESULT, _ERROR, _CALL = "result", "error", "call"


class _RemoteProgress(Progress):
    """Forwards calls to the progress at the other end of a pipe."""

    def __init__(self, connection: Connection):
        self.connection, self.num_phases = connection, 0

    def _send(self, method: str, *arguments) -> None:
        self.connection.send((_CALL, (method, arguments)))

    def start(self, phase: str, total: int = 0) -> Advance:
        number, self.num_phases = self.num_phases, self.num_phases + 1
        self._send("start", number, phase, total)
        return _RemotePhase(self, number).advance

    def say(self, sentence: str) -> None:
        self._send("say", sentence)

    def end_epoch(self, done: int) -> None:
        self._send("end_epoch", done)


class _RemotePhase:
    """Counts the units of a phase and reports them a few times per second."""

    def __init__(self, progress: _RemoteProgress, number: int):
        self.progress, self.number = progress, number
        self.reported_at, self.unreported = 0.0, 0

    def advance(self, count: int = 1) -> None:
        self.unreported += count
        if time.monotonic() - self.reported_at > _REPORT_SECONDS:
            self.progress._send("advance", self.number, self.unreported)
            self.reported_at, self.unreported = time.monotonic(), 0


class _Receiver:
    """Applies the calls that arrive to the progress of this process."""

    def __init__(self, progress: Progress):
        self.progress, self.phases = progress, {}

    def call(self, method: str, arguments: tuple) -> None:
        if method == "start":
            number, phase, total = arguments
            self.phases = {number: self.progress.start(phase, total)}  # phases do not overlap
        elif method == "advance":
            number, count = arguments
            if number in self.phases:
                self.phases[number](count)
        else:
            getattr(self.progress, method)(*arguments)


def call_in_process(function: Callable, *arguments, progress: Progress = SILENT):
    """Call a module-level function in a new process and return its result.

    `function` is called with `arguments` and a progress that reports to `progress`. Raises the InputError or
    KeyboardInterrupt of the process, and InputError if it is killed.
    """
    context = multiprocessing.get_context("spawn")
    connection, remote = context.Pipe(duplex=False)
    process = context.Process(target=_run_worker, args=(function, arguments, remote), daemon=True)
    process.start()
    remote.close()
    receiver, is_interrupted = _Receiver(progress), False
    while True:
        try:
            wait([connection, process.sentinel])
            if not connection.poll():
                process.join()
                if is_interrupted:
                    raise KeyboardInterrupt
                raise InputError(_explain_end(process.exitcode))
            kind, content = connection.recv()
            if kind == _CALL:
                receiver.call(*content)
                continue
        except EOFError:  # the process ended without a result
            process.join()
            if is_interrupted:
                raise KeyboardInterrupt from None
            raise InputError(_explain_end(process.exitcode)) from None
        except KeyboardInterrupt:
            if is_interrupted:
                raise
            is_interrupted = True  # the process saves, and then reports KeyboardInterrupt
            process.terminate()
            continue
        process.join()
        if kind == _RESULT:
            return content
        raise content


def _explain_end(code: int | None) -> str:
    reason = ": killed, probably out of memory; try a smaller training.batch_size" if code == -9 else ""
    return f"the training process ended with {code}{reason}"


def _run_worker(function: Callable, arguments: tuple, connection: Connection) -> None:
    os.setsid()  # Ctrl-C reaches only the parent, which passes it on as one SIGTERM
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    try:
        import_tensorflow()
        connection.send((_RESULT, function(*arguments, _RemoteProgress(connection))))
    except (InputError, OSError, KeyboardInterrupt) as error:
        connection.send((_ERROR, error))


def _exit_with(parent: int) -> None:
    """Exit when the parent process, given by its sentinel, ends."""
    wait([parent])
    os._exit(1)
