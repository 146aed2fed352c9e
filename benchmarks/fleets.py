"""Simulates fleets of up to 1,000 replicas: how many are needed, what policies do, and what a roll-out costs.

    .venv/bin/python -m benchmarks.fleets

Nothing is measured here: the same figures come on every machine. Steps are as long as `benchmarks.gpu` measured them
with a model of 8 billion parameters on an H200 (docs/performance.md); that a prompt's token takes 0.05 ms is assumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from benchmarks.results import Figure, Results, figure, run
from benchmarks.scaling import least_replicas, settled_traffic, warm_up_seconds
from benchmarks.simulation.replica import Limits, StepTimes
from benchmarks.simulation.run import Fleet, Outcome, quantile, simulate
from benchmarks.simulation.traffic import Length, Traffic

STEPS = StepTimes(((1, 0.0082), (16, 0.0100), (64, 0.0131), (256, 0.0252)), prompt_token=0.00005)
LIMITS = Limits(places=256, max_queue=256, step_prompt_tokens=2048)
FLEET = Fleet(100, STEPS, LIMITS, call_seconds=0.002)
PROMPT, ANSWER = Length(256, 1.0, most=8192), Length(128, 1.0, most=2048)
PER_REPLICA = 36.0
"""Requests a second for each replica: nine tenths of what one can answer, about."""
TARGET, SHARE = 0.5, 0.95


def traffic(rate: float, seconds: float = 20.0, **more: float) -> Traffic:
    """Returns the requests of a fleet, from 1,000 clients."""
    return Traffic(rate, seconds, PROMPT, ANSWER, **{"clients": 1000, **more})  # type: ignore[arg-type]


def outcome_of(fleet: Fleet, requests: Traffic) -> Outcome:
    """Returns the simulation of a fleet that has been at work for long."""
    return simulate(fleet, settled_traffic(fleet, requests).requests())


def first_token(outcome: Outcome, requests: Traffic) -> float:
    """Returns the seconds within which 95 % of the first tokens came."""
    return quantile(outcome.first_tokens(warm_up_seconds(requests)), SHARE)


def needed() -> Iterator[Figure]:
    """Yields the numbers of replicas for a first token in time, by the rate of requests."""
    table = f"Replicas for {SHARE:.0%} of first tokens within {TARGET} s"
    for rate in (40.0, 400.0, 4000.0, 38000.0):
        requests = traffic(rate, max(25.0, min(200.0, 30_000 / rate)))
        outcome = least_replicas(FLEET, requests, TARGET, SHARE, 0.001, precision=0.02)
        count = outcome.fleet.replicas
        yield figure(table, f"{rate:,.0f} requests a second", "replicas", [count], series="needed", at=rate)


def policies() -> Iterator[Figure]:
    """Yields first tokens by policy, with equal replicas and with some that are slower."""
    for words, share in (("all equally fast", 0.0), ("10 of them three times slower", 0.1)):
        table = f"First token of 95 % within, 100 replicas, {words}"
        for policy, clients, name in (
            ("round-robin", 1000, "turns, 1,000 clients"),
            ("round-robin", 1, "turns, one front"),
            ("weighted", 1000, "turns weighted by reports, 1,000 clients"),
            ("least-loaded", 1, "least loaded, one front that sees all calls"),
        ):
            rate = PER_REPLICA * (100 if share == 0 else 85)
            requests = traffic(rate, 24.0, clients=clients)
            outcome = outcome_of(replace(FLEET, policy=policy, slow_share=share, slow_factor=3.0), requests)
            yield figure(table, name, "s", [first_token(outcome, requests)])
            if outcome.refused:
                yield figure(table, f"{name}: refused", "%", [100 * outcome.refused / len(outcome.requests)])


def subsets() -> Iterator[Figure]:
    """Yields first tokens where each client knows some of the replicas alone."""
    table = "First token of 95 % within, 400 replicas, each of 400 clients knows some of them"
    requests = traffic(PER_REPLICA * 400, 16.0, clients=400)
    for known in (5, 20, 100):
        outcome = outcome_of(replace(FLEET, replicas=400, subset=known), requests)
        name = f"{known} replicas, drawn at random"
        yield figure(table, name, "s", [first_token(outcome, requests)])
        if outcome.refused:
            yield figure(table, f"{name}: refused", "%", [100 * outcome.refused / len(outcome.requests)])


def losses() -> Iterator[Figure]:
    """Yields first tokens while a part of the replicas is away, and with bursts."""
    table = "First token of 95 % within, 100 replicas at 80 % of what they can do, while some are away"
    requests = traffic(PER_REPLICA / 0.9 * 80, 24.0)
    for away in (0, 10, 15, 25):
        outcome = outcome_of(replace(FLEET, replicas=100 - away), requests)
        yield figure(table, f"{away} are away", "s", [first_token(outcome, requests)], series="turns", at=away)
        if outcome.refused:
            yield figure(table, f"{away} are away: refused", "%", [100 * outcome.refused / len(outcome.requests)])
    table = "First token of 95 % within, 20 replicas, by the mean load, steady and in bursts of two seconds"
    for part in (0.5, 0.6, 0.7, 0.8):
        for burst, words in ((1.0, "steady"), (2.0, "bursts of twice the rate")):
            requests = traffic(PER_REPLICA / 0.9 * 20 * part, 80.0, burst=burst, burst_seconds=2.0)
            outcome = outcome_of(replace(FLEET, replicas=20), requests)
            yield figure(
                table, f"{part:.0%}, {words}", "s", [first_token(outcome, requests)], series=words, at=100 * part
            )
            if outcome.refused:
                refused = 100 * outcome.refused / len(outcome.requests)
                yield figure(table, f"{part:.0%}, {words}: refused", "%", [refused])


def measure(options: argparse.Namespace) -> Results:
    """Simulates all of it."""
    notes = [
        f"Prompts of {PROMPT.mean} tokens and answers of {ANSWER.mean} in the mean, log-normal, as widely spread; "
        f"{LIMITS.places} places, a queue of {LIMITS.max_queue}, {LIMITS.step_prompt_tokens:,} tokens a step; seed 0."
    ]
    with ProcessPoolExecutor(2) as pool:
        tables = list(pool.map(_figures, (needed, policies, subsets, losses)))
    return Results([figure for figures in tables for figure in figures], {}, notes)


def _figures(table: Callable[[], Iterator[Figure]]) -> list[Figure]:
    return list(table())


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
