"""Training that leaves no trace in the process: random states, threads, logging and warnings are put back."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import torch

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


def seed_global_streams(seed: int) -> None:
    """Seed every global stream; a network's initialisation and a third-party augmentation draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the state that third-party code draws from
    random.seed(seed)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Put back the global state that training changes.

    Random states of torch, NumPy and Python, number of threads, default type, deterministic and benchmark flags, the
    handler of Ctrl+C. Gradients are on inside, whatever the caller's mode. For one thread at a time.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    interrupt = signal.getsignal(signal.SIGINT)
    # Asking an idle GPU for its state would create a context on it.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        # After one Ctrl+C, Lightning ignores the next. Only the main thread may set handlers, so only there did it.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != interrupt:
            signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says at every run: devices found, tips, loaders with few workers. Errors still speak."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
