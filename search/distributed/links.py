"""Connections between the ranks of a run, apart from those that train: what to evaluate next, what came of it.

One to each follower from rank 0. A peer that dies is noticed at once, for the system closes its connections; a host
that is cut off, in about `_SILENCE` seconds. Nothing needs to be said meanwhile: thinking may take as long as it will.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from search.errors import RunError, one_line
from search.training.launch import Launch

Message = dict[str, Any]
_PROBE, _PROBES = 5, 4
_SILENCE = _PROBE * (_PROBES + 1)
_LONGEST_HELLO = 10.0
_INVITATION = "catchmark"


class Link:
    """One end of a connection that carries JSON objects, one a line.

    Args:
        connection: open; it belongs to the link from now on.
        peer: the rank at the other end.
        place: where that runs, for people.
    """

    def __init__(self, connection: socket.socket, peer: int, place: str = ""):
        self.connection, self.peer, self.place, self.restarts = connection, peer, place, 0
        self._waiting, self._sending = b"", threading.Lock()
        connection.settimeout(None)
        for option, value in {
            "TCP_NODELAY": 1,
            "TCP_KEEPIDLE": _PROBE,
            "TCP_KEEPINTVL": _PROBE,
            "TCP_KEEPCNT": _PROBES,
            "TCP_USER_TIMEOUT": 1000 * _SILENCE,
        }.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send(self, **message: Any) -> None:
        """Send; that the peer is gone is noticed by whoever reads."""
        with self._sending, suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[Message] | None:
        """What has arrived, after waiting for something; None once the peer is gone."""
        try:
            arrived = self.connection.recv(1 << 16)
        except OSError:
            arrived = b""
        *lines, self._waiting = (self._waiting + arrived).split(b"\n")
        return [json.loads(line) for line in lines] if arrived else None

    def close(self) -> None:
        """Hang up; what was sent still arrives."""
        self.connection.close()


class Watch:
    """A thread that listens to links until they are closed.

    Args:
        links: to listen to.
        hear: called, in the thread, with a link and each of its messages, and with None when the peer is gone.
    """

    def __init__(self, links: list[Link], hear: Callable[[Link, Message | None], None]):
        self._hear = hear
        self._selector = selectors.DefaultSelector()
        self._bell, ringing = socket.socketpair()
        self._ringing = ringing
        self._selector.register(ringing, selectors.EVENT_READ, None)
        for link in links:
            self._selector.register(link.connection, selectors.EVENT_READ, link)
        self._thread = threading.Thread(target=self._run, name="catchmark-ranks", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if (link := key.data) is None:
                    return
                messages = link.read()
                for message in messages or ():
                    self._hear(link, message)
                if messages is None:
                    self._selector.unregister(link.connection)
                    self._hear(link, None)

    def close(self) -> None:
        """Listen no more."""
        self._bell.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._selector.close()
        self._ringing.close()


def meet(launch: Launch, seconds: float = 300.0) -> list[Link]:
    """Connect rank 0 with every other rank.

    Args:
        launch: where they meet.
        seconds: to wait for each other.

    Returns:
        On rank 0 a link to each follower, in order; on a follower the one to rank 0.

    Raises:
        RunError: some did not come, or the place to meet can't be used.
    """
    from torch.distributed import TCPStore

    deadline = time.monotonic() + seconds
    hosts = launch.rank == 0 and not launch.agent
    try:
        store = TCPStore(
            launch.address, launch.port, is_master=hosts, timeout=timedelta(seconds=seconds), wait_for_workers=False
        )
        if launch.rank > 0:
            return [_call(launch, lambda: _read(store, deadline), deadline)]
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        with socket.create_server(("", 0), family=family, backlog=launch.ranks, dualstack_ipv6=dual) as server:
            invitation = {"port": server.getsockname()[1], "token": secrets.token_hex(16)}
            store.set(_INVITATION, json.dumps(invitation))
            return _receive(server, launch, invitation["token"], deadline)
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"rank {launch.rank} of {launch.ranks} could not meet the others at {launch.address}:{launch.port} "
            f"({one_line(error)[:200]}); start every one of them, with srun or torchrun, within {seconds:g} s"
        ) from error


def _read(store: Any, deadline: float) -> Message:
    """The invitation. Asked for again and again, for in a wait of the store nothing would interrupt the process."""
    while not store.check([_INVITATION]):
        if time.monotonic() > deadline:
            raise TimeoutError("rank 0 does not come")
        time.sleep(0.05)
    return json.loads(store.get(_INVITATION))


def _call(launch: Launch, read: Callable[[], Mapping[str, Any]], deadline: float) -> Link:
    """The follower's side; an agent's store outlives its ranks, so an invitation may be of a rank 0 that is gone."""
    place = f"{socket.gethostname()}, process {os.getpid()}"
    while True:
        invitation = read()
        try:
            connection = socket.create_connection((launch.address, invitation["port"]), timeout=_LONGEST_HELLO)
            link = Link(connection, 0, launch.address)
            link.send(rank=launch.rank, token=invitation["token"], place=place, restarts=launch.restarts)
            connection.settimeout(_LONGEST_HELLO)
            if link.read():
                connection.settimeout(None)
                return link
            link.close()
        except OSError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise TimeoutError("rank 0 does not answer")
        time.sleep(0.2)


def _receive(server: socket.socket, launch: Launch, token: str, deadline: float) -> list[Link]:
    """The side of rank 0."""
    links: dict[int, Link] = {}
    while len(links) < launch.ranks - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection, _ = server.accept()
        except TimeoutError:
            missing = [str(rank) for rank in range(1, launch.ranks) if rank not in links]
            raise RunError(
                f"of {launch.ranks} ranks these did not come: {', '.join(missing[:8])}"
                f"{f' and {len(missing) - 8} more' if len(missing) > 8 else ''}; start every one of them, with srun or "
                "torchrun"
            ) from None
        link = Link(connection, 0)
        connection.settimeout(_LONGEST_HELLO)
        try:
            hello = (link.read() or [{}])[0]
        except ValueError:
            hello = {}
        if secrets.compare_digest(str(hello.get("token")), token) and hello["rank"] not in links:
            connection.settimeout(None)
            link.peer, link.place, link.restarts = hello["rank"], hello["place"], hello["restarts"]
            links[link.peer] = link
            link.send(welcome=launch.rank)
        else:
            link.close()  # a stranger
    return [links[rank] for rank in sorted(links)]


def name_interface(link: Link) -> None:
    """Let gloo use the network that ranks meet on; by itself it takes the one that the host's name belongs to."""
    import fcntl

    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    ours = link.connection.getsockname()[0].removeprefix("::ffff:")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                get_address, request = 0x8915, name[:15].encode().ljust(40, b"\0")  # SIOCGIFADDR, struct ifreq
                if socket.inet_ntoa(fcntl.ioctl(probe.fileno(), get_address, request)[20:24]) == ours:
                    os.environ["GLOO_SOCKET_IFNAME"] = name
                    return
