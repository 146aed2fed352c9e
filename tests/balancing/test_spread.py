"""Three servers behind one name, and each language's client: a server that dies, one that comes, one that is slow.

All programs call the same servers at the same time; each language has its own test of what its program saw.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.balancing.name_server import NameServer, name_server
from tests.balancing.programs import BUILDS, Call, Program
from tests.balancing.servers import Fleet, fleet
from tests.clients.toolchains import missing, require
from tests.waiting import wait_until

LANGUAGES = ("python", "go", "java", "node")
RATE = 20.0
LONGEST = 80.0
"""Seconds for which a program calls at most; it is ended as soon as its test has seen enough."""
PATIENCE = 50.0
WORD_SECONDS = 0.02
OUT_OF_BAND = {
    "weighted_round_robin": {"enableOobLoadReport": True, "oobReportingPeriod": "1s", "blackoutPeriod": "2s"}
}
"""gRPC's own configuration for servers that are asked for their load, instead of telling it with each answer."""
pytestmark = pytest.mark.timeout(400)


class Watched:
    """A program, and the number of its calls that had ended at each turn of events."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.turns = [0]

    def turn(self) -> None:
        """Notes that something has changed."""
        self.turns.append(len(self.program.calls))

    def calls(self, turn: int = -1) -> Sequence[Call]:
        """Returns the calls that ended between a turn of events and the next one; the latest turn if absent."""
        end = self.turns[turn + 1] if turn + 1 < len(self.turns) and turn != -1 else None
        return self.program.calls[self.turns[turn] : end]

    def answers(self, turn: int = -1) -> Counter[str]:
        """Returns the number of these calls by the server that answered."""
        return Counter(call.server for call in self.calls(turn))

    @property
    def errors(self) -> list[str]:
        """The errors of all calls."""
        return [call.error for call in self.program.calls if call.error]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Sequence[str]]:
    """The programs of the languages whose tools this machine has."""
    return {name: BUILDS[name](tmp_path_factory.mktemp(name)) for name in LANGUAGES if not missing(name)}


@contextmanager
def three_servers(folder: Path) -> Iterator[Fleet]:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.2", 0))
        except OSError:
            pytest.skip("this system has one loopback address alone")
    with fleet(folder) as servers:
        yield servers


def call(
    stack: ExitStack, commands: Mapping[str, Sequence[str]], names: NameServer, servers: Fleet, folder: Path, **how: Any
) -> dict[str, Watched]:
    """Starts the programs; they end with the stack."""
    programs = {}
    for name, command in commands.items():
        program = Program(name, command, names, servers.port, folder, rate=RATE, seconds=LONGEST, **how)
        stack.callback(program.stop)
        programs[name] = Watched(program)
    return programs


def wait_for_all(programs: Mapping[str, Watched], holds: Callable[[Watched], bool]) -> None:
    """Waits until something holds of every program, or for so long that the tests will say of which it does not."""
    with suppress(TimeoutError):
        wait_until(lambda: all(holds(program) for program in programs.values()), PATIENCE)


def turn(programs: Mapping[str, Watched]) -> None:
    for program in programs.values():
        program.turn()


@pytest.fixture(scope="module")
def death(commands: Mapping[str, Sequence[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Watched]:
    """Two of three servers run; one is killed, the third one started, and another one told to end."""
    folder = tmp_path_factory.mktemp("death")
    with three_servers(folder) as servers, ExitStack() as stack:
        names = stack.enter_context(name_server(*(servers.address(name) for name in "abc")))
        for name in "ab":
            servers.start(name, WORD_SECONDS, {"max_connection_age": "3s"})
        programs = call(stack, commands, names, servers, folder)
        wait_for_all(programs, lambda one: min(one.answers()[name] for name in "ab") >= 12)
        servers.kill("a")
        turn(programs)
        wait_for_all(programs, lambda one: one.answers()["b"] >= 25)
        servers.start("c", WORD_SECONDS, {"max_connection_age": "3s"})
        turn(programs)
        wait_for_all(programs, lambda one: one.answers()["c"] >= 5)
        turn(programs)
        wait_for_all(programs, lambda one: one.answers().total() >= 40)
        servers.terminate("b")
        turn(programs)
        wait_for_all(programs, lambda one: one.answers()["c"] >= 12)
        turn(programs)
    return programs


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_caller_notices_that_a_server_dies_and_another_comes(language: str, death: Mapping[str, Watched]) -> None:
    require(language)
    seen = death[language]
    assert seen.errors == []
    before, without, _, after, last_one = (seen.answers(turn) for turn in range(5))
    assert min(before["a"], before["b"]) >= 12
    assert before["c"] == 0
    # What the dead server had answered may be read after its death.
    assert without["b"] >= 25 and without["a"] <= 5
    # In turn, but for the times at which connections grow old.
    assert after["a"] == 0
    assert min(after["b"], after["c"]) >= 0.3 * after.total(), after
    assert last_one["c"] >= 12


@pytest.fixture(scope="module")
def slowness(commands: Mapping[str, Sequence[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Watched]:
    """One of three servers takes five times as long."""
    folder = tmp_path_factory.mktemp("slowness")
    with three_servers(folder) as servers, ExitStack() as stack:
        names = stack.enter_context(name_server(*(servers.address(name) for name in "abc")))
        for name in "abc":
            servers.start(name, WORD_SECONDS * (5 if name == "c" else 1))
        programs = call(stack, commands, names, servers, folder, load_balancing="weighted_round_robin")
        config = json.dumps({"loadBalancingConfig": [OUT_OF_BAND]})
        asking = {name: command for name, command in commands.items() if name in ("python", "go")}
        others = call(stack, asking, names, servers, folder, service_config=config)
        programs |= {f"{name}, out of band": program for name, program in others.items()}
        wait_for_all(programs, lambda one: {"a", "b", "c"} <= set(one.answers()) and len(one.calls()) > 60)
        wait_for_all(programs, lambda one: last(one)["c"] <= 6)
    return programs


def last(watched: Watched) -> Counter[str]:
    """The number of the last hundred answers by server."""
    return Counter(call.server for call in watched.program.calls[-100:])


@pytest.mark.parametrize("language", [*LANGUAGES, "python, out of band", "go, out of band"])
def test_a_slow_server_gets_few_calls_by_grpcs_own_weights(language: str, slowness: Mapping[str, Watched]) -> None:
    require(language.partition(",")[0])
    seen = slowness[language]
    assert seen.errors == []
    assert seen.answers(0)["c"] > 0
    shares = last(seen)
    # In turn it would be a third; by the time that a call takes, every eleventh.
    assert shares["c"] <= 6, shares
    assert min(shares["a"], shares["b"]) >= 30, shares


def test_a_name_that_has_got_another_address_is_asked_again_when_connections_grow_old(
    commands: Mapping[str, Sequence[str]], tmp_path: Path
) -> None:
    """A scale-up: the new server is none of those that the client knows, and nothing fails that would tell it so."""
    with three_servers(tmp_path) as servers, ExitStack() as stack:
        names = stack.enter_context(name_server(servers.address("a")))
        servers.start("a", WORD_SECONDS, {"max_connection_age": "1s"})
        # gRPC asks for a name again after thirty seconds at the earliest; the program in Python has it wait for less.
        (program,) = call(stack, {"python": commands["python"]}, names, servers, tmp_path).values()
        wait_until(lambda: len(program.calls()) >= 12)
        servers.start("b", WORD_SECONDS, {"max_connection_age": "1s"})
        names.addresses = (servers.address("a"), servers.address("b"))
        wait_until(lambda: program.answers()["b"] >= 12)
        program.turn()
        wait_until(lambda: len(program.calls()) >= 40)
        assert min(program.answers()[name] for name in "ab") >= 12
        assert program.errors == []
