"""Simulates replicas of a server: how many are needed for a first token in time, or how many do what.

    .venv/bin/python -m benchmarks.scaling --rate 400 --first-token 0.5 \
        --step 1:8.2 16:10 64:13.1 256:25.2 --prompt-token 0.04 --places 256 --prompt 256 --answer 128
    .venv/bin/python -m benchmarks.scaling --replicas 8 --rate 400 --policy round-robin --slow 0.1:5 ...

`--step ANSWERS:MILLISECONDS ...` are the times of a step by the answers that grow in it, as `benchmarks.engine`
("Decode step") and `benchmarks.gpu` measure them on your machine, or as a server's metrics tell:
`abstractllm_engine_step_duration_seconds_total` over `abstractllm_engine_steps_total`, at some
`abstractllm_engine_batch_size`. `--prompt-token MILLISECONDS` is what each token of a prompt adds to a step: the time
to the first token of a long prompt, alone on a server, over its tokens.

The queue is the server's: `--places` is the key `max_batch_size`, `--queue` is `max_queue`. The cache of keys and
values is taken to be large enough. docs/scaling.md says how far the simulation can be trusted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.results import Figure, Results, Target, figure, number, positive, run
from benchmarks.simulation.policies import POLICIES
from benchmarks.simulation.replica import Limits, Request, StepTimes
from benchmarks.simulation.run import Fleet, Outcome, quantile, simulate
from benchmarks.simulation.traffic import Length, Traffic

__all__ = ["UnreachableError", "describe", "least_replicas", "settled_traffic", "warm_up_seconds"]

_MOST_REPLICAS = 20_000
_REQUESTS = 60_000
"""Requests of a simulation, where its duration is not named."""
_ANSWER_TIMES = 6
"""The least duration of a simulation, in times that an answer takes on a full replica: queues need time to grow."""


class UnreachableError(ValueError):
    """A target that no number of replicas can meet."""


def warm_up_seconds(traffic: Traffic) -> float:
    """Returns the time at the start that is not counted, in which the replicas fill."""
    return min(30.0, traffic.seconds / 4)


def settled_traffic(fleet: Fleet, traffic: Traffic) -> Traffic:
    """Returns the traffic with the requests that so many replicas have on their way, in the mean."""
    rate = traffic.rate / fleet.replicas
    left = 1 - rate * (traffic.prompt.mean * fleet.times.prompt_token + fleet.times.request)
    growing = float(fleet.limits.places)
    if left > 0:  # the answers that grow, times their steps, which are longer the more there are
        growing = 1.0
        for _ in range(200):
            step = fleet.times.seconds(max(1, round(growing))) / left
            growing = min(fleet.limits.places, rate * traffic.answer.mean * step)
    return replace(traffic, running=round(growing * fleet.replicas))


def least_replicas(
    fleet: Fleet, traffic: Traffic, first_token: float, share: float, refused: float, precision: float = 0.0
) -> Outcome:
    """Finds the least number of replicas that meets a target.

    Args:
        fleet: The replicas; their number does not count.
        traffic: The requests.
        first_token: The seconds within which first tokens should come.
        share: The share of the requests for which they should.
        refused: The share of the requests that may be refused.
        precision: The share of the number by which it may be too large, to be found sooner.

    Returns:
        The simulation with that number.

    Raises:
        UnreachableError: If more than 20,000 would be needed, or an empty replica is too slow already.
    """
    alone = quantile(_alone(fleet, traffic), share)
    if alone > first_token:
        raise UnreachableError(
            f"no number of replicas gives {100 * share:g} % of first tokens within {number(first_token)} s: "
            f"on an empty one it takes {number(alone)} s"
        )

    def attempt(count: int) -> Outcome | None:
        tried = replace(fleet, replicas=count, subset=min(fleet.subset, count))
        outcome = simulate(tried, settled_traffic(tried, traffic).requests())
        is_enough = outcome.refused <= refused * len(outcome.requests)
        times = outcome.first_tokens(warm_up_seconds(traffic))
        return outcome if is_enough and quantile(times, share) <= first_token else None

    # So many or fewer could not keep up: in a simulation that is short a queue that grows for ever may still be small.
    few = math.floor(traffic.rate * _busy_seconds(fleet, traffic)) + 1
    many, best, step = few, attempt(few), max(1, int(precision * few))
    while best is None:
        if many >= _MOST_REPLICAS:
            raise UnreachableError(f"more than {_MOST_REPLICAS:,} replicas would be needed")
        few, many, step = many + 1, min(_MOST_REPLICAS, many + step), 2 * step
        best = attempt(many)
    while few < many and many - few > precision * many:
        middle = (few + many) // 2
        if (outcome := attempt(middle)) is not None:
            many, best = middle, outcome
        else:
            few = middle + 1
    return best


def _busy_seconds(fleet: Fleet, traffic: Traffic) -> float:
    """Returns the seconds of a full replica that a request takes."""
    places = fleet.limits.places
    decode = traffic.answer.mean * fleet.times.seconds(places) / places
    return decode + traffic.prompt.mean * fleet.times.prompt_token + fleet.times.request


def _alone(fleet: Fleet, traffic: Traffic) -> list[float]:
    """Returns the times to the first token of some requests, each alone on a replica, sorted."""
    few = replace(traffic, seconds=min(traffic.seconds, 500 / traffic.rate))
    spaced = [Request(request.number, 1e6 * request.number, request.prompt_tokens, 1) for request in few.requests()]
    return simulate(replace(fleet, replicas=1, subset=0, slow_share=0), spaced).first_tokens()


def describe(
    outcome: Outcome, traffic: Traffic, table: str, target: Target | None = None, share: float = 0.95
) -> list[Figure]:
    """Returns the figures of a simulation."""
    warm_up = warm_up_seconds(traffic)
    first_tokens, waits = outcome.first_tokens(warm_up), outcome.waits(warm_up)
    # Those that ended while requests came: at the end the replicas empty.
    tokens = sum(one.answer_tokens for one in outcome.answered if warm_up <= one.ended <= traffic.seconds)
    counted = traffic.seconds - warm_up
    # Little's law: the requests of a second, times the seconds that each of their answers grows.
    growing = sum(one.ended - one.first_token for one in outcome.settled(warm_up)) / counted / len(outcome.replicas)
    fleet = outcome.fleet
    slow = round(fleet.slow_share * fleet.replicas)
    capacity = (fleet.replicas - slow + slow / fleet.slow_factor) / _busy_seconds(fleet, traffic)

    def line(name: str, unit: str, value: float, bound: Target | None = None) -> Figure:
        return figure(table, name, unit, [value], target=bound)

    lines = [line("replicas", "", outcome.fleet.replicas)]
    for part in sorted({0.5, 0.95, 0.99, share}):
        bound = target if part == share else None
        lines.append(
            line(f"first token, {100 * part:g} % of requests within", "s", quantile(first_tokens, part), bound)
        )
    lines += [
        line(f"wait for a place, {100 * part:g} % of requests within", "s", quantile(waits, part))
        for part in (0.5, 0.95)
    ]
    return [
        *lines,
        line("requests that were refused", "%", 100 * outcome.refused / max(1, len(outcome.requests))),
        line("tokens a second, all replicas", "tokens/s", tokens / counted),
        line("answers that grow at a time, on each replica", "", growing),
        line("part of what the replicas can do", "%", 100 * traffic.rate / capacity),
    ]


def measure(options: argparse.Namespace) -> Results:
    """Simulates what the command line says.

    Raises:
        UnreachableError: If no number of replicas meets the target.
    """
    traffic = Traffic(
        options.rate,
        options.seconds or 1.0,
        Length(options.prompt, options.prompt_spread, most=options.most),
        Length(options.answer, options.answer_spread, most=options.most),
        options.burst,
        options.burst_seconds,
        options.clients,
        options.seed,
    )
    slow_share, slow_factor = options.slow
    fleet = Fleet(
        options.replicas or max(1, options.subset),
        StepTimes(options.step, options.prompt_token / 1000, options.request / 1000),
        Limits(options.places, options.queue, options.step_prompt_tokens),
        options.policy,
        options.subset,
        slow_share,
        slow_factor,
        options.attempts,
        options.call / 1000,
        options.seed,
    )
    if not options.seconds:
        answer = fleet.limits.places * _busy_seconds(fleet, traffic)
        seconds = max(20.0, min(600.0, _REQUESTS / traffic.rate), _ANSWER_TIMES * answer)
        traffic = replace(traffic, seconds=math.ceil(seconds))
    share = options.percentile / 100
    target = Target(most=options.first_token) if options.first_token else None
    if options.replicas:
        outcome = simulate(fleet, settled_traffic(fleet, traffic).requests())
    else:
        outcome = least_replicas(fleet, traffic, options.first_token, share, options.refused / 100)
    title = f"{options.rate:g} requests a second, {options.policy}"
    came = sum(request.arrived > 0 for request in outcome.requests)
    notes = [f"{came:,} requests in {traffic.seconds:.0f} s of simulated time, seed {options.seed}."]
    if not options.prompt_token:
        notes.append("Prompts take no time in this: name it by --prompt-token.")
    return Results(describe(outcome, traffic, title, target, share), {}, notes)


def _steps(text: str) -> tuple[int, float]:
    rows, separator, milliseconds = text.partition(":")
    try:
        point = int(rows), float(milliseconds) / 1000
    except ValueError:
        separator = ""
        point = 0, 0.0
    if not separator or point[0] < 1 or not 0 < point[1] < math.inf:
        raise argparse.ArgumentTypeError(f"ANSWERS:MILLISECONDS is needed, such as 16:10.5, got {text!r}")
    return point


def _slow(text: str) -> tuple[float, float]:
    share, _, factor = text.partition(":")
    try:
        values = float(share), float(factor)
    except ValueError:
        values = -1.0, 0.0
    if not (0 <= values[0] <= 1 and 1 <= values[1] < math.inf):
        raise argparse.ArgumentTypeError(f"SHARE:FACTOR is needed, such as 0.1:5, got {text!r}")
    return values


def _within(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (above and value == least):
            bound = f"more than {least:g}" if above else f"at least {least:g}"
            raise argparse.ArgumentTypeError(f"a number of {bound} and at most {most:g} is needed, got {text!r}")
        return value

    return read


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    built = argparse.ArgumentParser(
        prog="benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    above_zero, spread = _within(0, 1e9, above=True), _within(0, 10)

    def add(group: Any, name: str, kind: Callable[[str], Any], default: Any, text: str, **more: Any) -> None:
        group.add_argument(
            name,
            type=kind,
            default=default,
            help=f"{text} ({default})" if isinstance(default, int | float) else text,
            **more,
        )

    goal = built.add_argument_group("the question: how many replicas for a target, or what a number of them does")
    add(goal, "--first-token", above_zero, None, "the target in seconds", metavar="SECONDS")
    add(goal, "--percentile", _within(1, 99.9), 95.0, "the percentage of requests that should meet it")
    add(goal, "--refused", _within(0, 100), 0.1, "the percentage of requests that may be refused with OVERLOADED")
    add(goal, "--replicas", positive, None, "simulate this number instead of looking for one", metavar="N")
    engine = built.add_argument_group("one replica")
    engine.add_argument("--step", type=_steps, nargs="+", required=True, metavar="ANSWERS:MS", help="times of a step")
    add(
        engine,
        "--prompt-token",
        _within(0, 1e6),
        0.0,
        "milliseconds that a prompt's token adds to a step",
        metavar="MS",
    )
    add(
        engine, "--request", _within(0, 1e6), 0.0, "milliseconds of a replica that a request takes beside", metavar="MS"
    )
    add(engine, "--places", positive, 64, "max_batch_size: 64 on a CPU, 256 on a GPU by default")
    add(engine, "--queue", _within(0, 1e9), 256, "max_queue")
    add(engine, "--step-prompt-tokens", positive, 512, "tokens of a step at most: 512 on a CPU, 2048 on a GPU")
    add(
        engine, "--call", _within(0, 1e6), 0.0, "milliseconds of a call beside the engine, there and back", metavar="MS"
    )
    traffic = built.add_argument_group("the requests")
    traffic.add_argument("--rate", type=above_zero, required=True, help="requests a second, in the mean")
    add(traffic, "--burst", _within(1, 1000), 1.0, "the rate within a burst over the mean; half of all come in bursts")
    add(traffic, "--burst-seconds", above_zero, 5.0, "the mean duration of a burst")
    add(traffic, "--prompt", _within(1, 1e7), 256.0, "tokens of a prompt, in the mean")
    add(traffic, "--prompt-spread", spread, 1.0, "standard deviation over mean; 0 for equal ones")
    add(traffic, "--answer", _within(1, 1e7), 128.0, "tokens of an answer, in the mean")
    add(traffic, "--answer-spread", spread, 1.0, "standard deviation over mean; 0 for equal ones")
    add(traffic, "--most", positive, 100_000, "tokens of a prompt or an answer at most")
    way = built.add_argument_group("the way to the replicas")
    way.add_argument("--policy", choices=tuple(POLICIES), default="round-robin", help="(round-robin)")
    add(way, "--clients", positive, 1, "processes that balance, each by itself")
    add(way, "--subset", _within(0, 1e6), 0, "replicas that each client knows; 0 for all")
    add(
        way, "--slow", _slow, (0.0, 1.0), "share of slow replicas, and how much slower they are", metavar="SHARE:FACTOR"
    )
    add(way, "--attempts", positive, 1, "tries of a refused request in all; the shipped clients make 5")
    absent = "as long as 60,000 requests take, 20 to 600 s, and 6 answers at least"
    add(built, "--seconds", above_zero, None, f"simulated time; if absent {absent}")
    built.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    return built


def main() -> int:
    """Runs the command line."""
    built = parser()
    options, _ = built.parse_known_args()
    if not (options.first_token or options.replicas):
        built.error("--first-token SECONDS or --replicas N is needed")
    options.subset = int(options.subset)
    if options.replicas and options.subset > options.replicas:
        built.error(f"--subset {options.subset}: there are only {options.replicas} replicas")
    try:
        StepTimes(tuple(sorted(options.step)))
        return run(built, lambda values: measure(_normal(values)))
    except ValueError as error:
        built.error(str(error))


def _normal(options: argparse.Namespace) -> argparse.Namespace:
    options.step, options.subset = tuple(sorted(options.step)), int(options.subset)
    return options


if __name__ == "__main__":
    sys.exit(main())
