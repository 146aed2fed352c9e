"""The command that tells how many replicas are needed, and the page that shows what it says."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fleets
from benchmarks.limits import addresses, dns_answer
from benchmarks.scaling import UnreachableError, describe, least_replicas, parser, settled_traffic, warm_up_seconds
from benchmarks.simulation.replica import Limits, StepTimes
from benchmarks.simulation.run import Fleet, quantile, simulate
from benchmarks.simulation.traffic import Length, Traffic
from tests.unit.test_docs_links import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text("utf-8")
STEPS = ["--step", "1:8", "64:13"]


def scaling(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


def test_the_command_on_the_page_says_what_the_page_says() -> None:
    [(command, output)] = re.findall(
        r"```sh\n(\S+python -m benchmarks\.scaling .*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL
    )
    arguments = shlex.split(command.replace("\\\n", ""))[3:]
    done = scaling(*arguments)
    assert done.stdout.strip() == output.strip(), done.stderr


def test_the_page_names_every_option_of_the_command() -> None:
    options = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}
    unnamed = {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", PAGE)}
    assert unnamed <= {"--help", "--seconds", "--seed", "--percentile", "--refused", "--attempts", "--most"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --step, --rate"),
        (["--rate", "5", *STEPS], "--first-token SECONDS or --replicas N is needed"),
        (["--rate", "0", "--replicas", "1", *STEPS], "--rate: a number of more than 0"),
        (
            ["--rate", "x", "--replicas", "1", *STEPS],
            "--rate: a number of more than 0 and at most 1e+09 is needed, got 'x'",
        ),
        (["--rate", "5", "--replicas", "0", *STEPS], "--replicas: a whole number of at least 1 is needed, got '0'"),
        (
            ["--rate", "5", "--replicas", "1", "--step", "16"],
            "ANSWERS:MILLISECONDS is needed, such as 16:10.5, got '16'",
        ),
        (["--rate", "5", "--replicas", "1", "--step", "1:-4"], "ANSWERS:MILLISECONDS is needed"),
        (["--rate", "5", "--replicas", "1", "--step", "4:8", "4:9"], "growing numbers of answers"),
        (["--rate", "5", "--replicas", "2", "--subset", "3", *STEPS], "--subset 3: there are only 2 replicas"),
        (
            ["--rate", "5", "--replicas", "1", "--slow", "2:3", *STEPS],
            "SHARE:FACTOR is needed, such as 0.1:5, got '2:3'",
        ),
        (["--rate", "5", "--replicas", "1", "--burst", "0.5", *STEPS], "--burst: a number of at least 1"),
        (["--rate", "5", "--replicas", "1", "--policy", "best", *STEPS], "invalid choice: 'best'"),
        (["--rate", "5", "--first-token", "0.001", *STEPS], "on an empty one it takes"),
    ],
)
def test_wrong_input_is_refused_by_name(arguments: list[str], message: str) -> None:
    done = scaling(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split()), done.stderr


def test_figures_of_ones_own_can_be_had_as_json(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    order = ["--step", "64:13", "1:8"]  # in any order
    done = scaling("--rate", "50", "--replicas", "3", "--seconds", "30", *order, "--json", str(file))
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    first = data["figures"][0]
    assert (first["table"], first["name"], first["value"]) == ("50 requests a second, round-robin", "replicas", 3)
    assert "Prompts take no time in this: name it by --prompt-token." in data["notes"]


FLEET = Fleet(1, StepTimes(((1, 0.010), (32, 0.030)), 0.0001), Limits(32, 100))


def test_one_replica_less_would_not_be_enough() -> None:
    traffic = Traffic(120, 60, Length(64, 1), Length(64, 1), seed=4)
    best = least_replicas(FLEET, traffic, 0.3, 0.95, 0.001)
    count = best.fleet.replicas
    assert count > 2

    def time_of(replicas: int) -> float:
        fleet = replace(FLEET, replicas=replicas)
        outcome = simulate(fleet, settled_traffic(fleet, traffic).requests())
        return quantile(outcome.first_tokens(warm_up_seconds(traffic)), 0.95)

    assert time_of(count) <= 0.3 < time_of(count - 1)


def test_replicas_that_are_enough_can_keep_up_however_short_the_simulation_is() -> None:
    """A queue that grows for ever is small at first."""
    rate = 400.0
    best = least_replicas(fleets.FLEET, fleets.traffic(rate, 6.0), fleets.TARGET, fleets.SHARE, 0.001)
    places, step = fleets.LIMITS.places, fleets.STEPS.seconds(fleets.LIMITS.places)
    seconds = fleets.ANSWER.mean * step / places + fleets.PROMPT.mean * fleets.STEPS.prompt_token
    assert rate / best.fleet.replicas < 1 / seconds


def test_a_simulation_begins_with_replicas_that_have_been_at_work() -> None:
    """Else it would have to last until they have filled: minutes, where an answer takes one."""
    fleet = replace(FLEET, replicas=4, times=StepTimes(((1, 0.2), (32, 0.6)), 0.001))
    traffic = Traffic(1.9, 600, Length(64, 1), Length(100, 1), seed=4)
    settled = settled_traffic(fleet, traffic)
    assert 0.5 * 128 < settled.running < 128

    def running(requests: Traffic, second: float) -> int:
        """The number of answers that grow at a time."""
        run = simulate(fleet, requests.requests())
        return sum(one.first_token <= second < one.ended for one in run.answered)

    later = statistics.fmean(running(settled, second) for second in (300, 400, 500))
    assert running(settled, 5) == pytest.approx(later, rel=0.3)
    assert running(traffic, 5) < 0.3 * later


def test_the_load_is_the_part_of_what_the_replicas_can_do() -> None:
    """Half of them are twice as slow: together they do what three equal ones do."""
    fleet = replace(FLEET, replicas=4, slow_share=0.5, slow_factor=2)
    traffic = Traffic(20, 300, Length(64, 1), Length(64, 1), seed=4)
    outcome = simulate(fleet, settled_traffic(fleet, traffic).requests())
    lines = {one.name: one.value for one in describe(outcome, traffic, "T")}
    one = 1 / (64 * 0.030 / 32 + 64 * 0.0001)
    assert lines["part of what the replicas can do"] == pytest.approx(100 * 20 / (3 * one))
    assert lines["tokens a second, all replicas"] == pytest.approx(20 * 64, rel=0.1)
    assert 0 < lines["answers that grow at a time, on each replica"] <= 32


def test_a_target_that_cannot_be_met_is_said_to_be_so() -> None:
    with pytest.raises(UnreachableError, match="on an empty one it takes"):
        least_replicas(FLEET, Traffic(10, 20, Length(1000), Length(5)), 0.05, 0.95, 0.001)


def test_fleets_need_more_replicas_for_more_requests() -> None:
    few, more = (
        least_replicas(fleets.FLEET, fleets.traffic(rate, 20.0), fleets.TARGET, fleets.SHARE, 0.001).fleet.replicas
        for rate in (40.0, 200.0)
    )
    assert few == 2 and 5 <= more <= 7


@pytest.mark.parametrize(("count", "length"), [(1, 47), (1000, 16_031)])
def test_an_answer_of_dns_has_the_length_that_the_page_says(count: int, length: int) -> None:
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0\x08replicas\x04test\0\0\1\0\1"
    whole = dns_answer(query, count, by_tcp=True)
    assert len(whole) == length
    assert whole[:2] == query[:2] and int.from_bytes(whole[6:8], "big") == count
    assert whole.endswith(bytes(map(int, addresses(count)[-1].split("."))))
    by_udp = dns_answer(query, count, by_tcp=False)
    assert by_udp == whole if count == 1 else (len(by_udp) < 60 and by_udp[2] & 2)  # cut off: ask again by TCP


def test_the_longest_answer_of_dns_has_the_addresses_that_the_page_says() -> None:
    [count] = re.findall(r"\| a name's addresses \| ([\d,]+):", PAGE)
    names = len(b"\x08replicas\x04test\0") + 4
    assert int(count.replace(",", "")) == (65_535 - 12 - names) // 16
