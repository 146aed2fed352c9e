"""The simulation of replicas: against what queueing theory knows exactly, and nothing is lost in it."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest

from benchmarks.simulation.policies import POLICIES
from benchmarks.simulation.replica import Limits, Request, StepTimes
from benchmarks.simulation.run import Fleet, Outcome, quantile, simulate
from benchmarks.simulation.traffic import Length, Traffic

SERVICE = 1000
"""Tokens of an answer, in the mean: a second."""
STEP = StepTimes(((1, 1 / SERVICE),))
"""A step that takes as long with many answers as with one: places are servers of a queue then."""
EXPONENTIAL, CONSTANT = Length(SERVICE, exponential=True, most=100 * SERVICE), Length(SERVICE)


def outcome(rate: float, answer: Length, seconds: float, *, servers: int = 1, **fleet: object) -> Outcome:
    limits = Limits(places=servers, max_queue=math.inf)
    traffic = Traffic(rate, seconds, Length(1), answer, seed=7)
    return simulate(Fleet(times=STEP, limits=limits, **{"replicas": 1, **fleet}), traffic.requests())  # type: ignore[arg-type]


def mean_wait(run: Outcome) -> float:
    return statistics.fmean(run.waits(warm_up=100))


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_one_server_with_exponential_answers_waits_as_in_m_m_1(rate: float) -> None:
    run = outcome(rate, EXPONENTIAL, 25_000 / rate)
    assert mean_wait(run) == pytest.approx(rate / (1 - rate), rel=0.06)
    assert run.utilization() == pytest.approx(rate, rel=0.02)
    # Those who come when nobody is there begin at once.
    assert statistics.fmean(wait == 0 for wait in run.waits()) == pytest.approx(1 - rate, abs=0.01)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_one_server_with_equal_answers_waits_as_in_m_d_1(rate: float) -> None:
    run = outcome(rate, CONSTANT, 60_000 / rate)
    assert mean_wait(run) == pytest.approx(rate / (2 * (1 - rate)), rel=0.06)


@pytest.mark.parametrize(("servers", "rate", "error"), [(2, 1.4, 0.05), (8, 6.4, 0.08), (64, 58.0, 0.15)])
def test_places_of_one_batch_wait_as_in_m_m_c(servers: int, rate: float, error: float) -> None:
    run = outcome(rate, EXPONENTIAL, 25_000 / rate, servers=servers)
    # Erlang's C: the part that waits, and from it the mean wait.
    ratio = rate / servers
    terms = [math.exp(k * math.log(rate) - math.lgamma(k + 1)) for k in range(servers + 1)]
    last = terms[-1] / (1 - ratio)
    waits = last / (sum(terms[:-1]) + last)
    # A newcomer also waits for the end of the step in which it comes, half a step in the mean.
    expected = waits / (servers - rate) + 0.5 / SERVICE
    assert mean_wait(run) == pytest.approx(expected, rel=error)


def test_replicas_chosen_at_random_are_queues_of_their_own() -> None:
    run = outcome(0.7 * 10, EXPONENTIAL, 8_000, replicas=10, policy="random")
    assert mean_wait(run) == pytest.approx(0.7 / 0.3, rel=0.05)


def test_turns_of_one_client_wait_as_with_evened_out_arrivals() -> None:
    run = outcome(0.7 * 4, EXPONENTIAL, 20_000, replicas=4)
    # Every fourth arrival of a Poisson stream: E4/M/1, whose root is the least s with s = (4 r / (4 r + 1 - s)) ** 4.
    root = 0.5
    for _ in range(200):
        root = (4 * 0.7 / (4 * 0.7 + 1 - root)) ** 4
    assert mean_wait(run) == pytest.approx(root / (1 - root), rel=0.05)


def test_the_least_loaded_of_two_comes_near_to_one_queue() -> None:
    """The shortest queue waits longer than one queue of two servers, and not much."""
    rate = 1.6
    alone, chosen = (
        outcome(rate, EXPONENTIAL, 40_000, servers=2),
        outcome(rate, EXPONENTIAL, 25_000, replicas=2, policy="least-loaded"),
    )
    at_random = outcome(rate, EXPONENTIAL, 25_000, replicas=2, policy="random")
    assert mean_wait(alone) < mean_wait(chosen) < 1.35 * mean_wait(alone) < mean_wait(at_random)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("attempts", [1, 4])
def test_nothing_is_lost_when_far_too_much_comes(policy: str, attempts: int) -> None:
    times = StepTimes(((1, 0.01), (8, 0.02)), prompt_token=0.0001)
    fleet = Fleet(3, times, Limits(8, 5), policy, slow_share=0.34, slow_factor=5, attempts=attempts)
    traffic = Traffic(100, 20, Length(300, 1), Length(50, 1), burst=3, clients=5, seed=3)
    sent = list(traffic.requests())
    run = simulate(fleet, traffic.requests())
    assert [request.number for request in run.requests] == [request.number for request in sent]
    assert len(run.answered) + run.refused == len(sent)
    assert run.refused > 0
    assert sum(replica.answered for replica in run.replicas) == len(run.answered)
    assert all(replica.load == 0 and replica.ends < 0 for replica in run.replicas)
    for request in run.answered:
        assert request.arrived <= request.begun < request.first_token <= request.ended
        # No faster than the fastest steps.
        least = times.seconds(1) * (request.answer_tokens - 1)
        assert request.ended - request.first_token >= least * (1 - 1e-9)
    for request in run.requests:
        assert 1 <= request.attempts <= attempts
        assert request.ended >= 0 or request.attempts == attempts


def test_a_replica_never_holds_more_than_its_limits() -> None:
    times, limits = StepTimes(((1, 0.01),)), Limits(places=4, max_queue=6)
    run = simulate(Fleet(1, times, limits), Traffic(1000, 1, Length(1), Length(1000)).requests())
    # Four run, six wait, and four are with the engine ahead of their turn.
    assert len(run.answered) == limits.most == 14
    assert run.refused == len(run.requests) - 14


def test_a_prompt_is_read_in_pieces_beside_growing_answers() -> None:
    times, limits = StepTimes(((1, 1.0), (2, 1.5)), prompt_token=0.01), Limits(places=2, step_prompt_tokens=100)
    requests = [Request(0, 0.0, 50, 10), Request(1, 0.1, 250, 2)]
    run = simulate(Fleet(1, times, limits), requests)
    one, other = run.requests
    assert one.first_token == pytest.approx(times.seconds(0, 50))
    # 250 tokens take three steps of 99, 99 and 52 beside one answer that grows.
    steps = [times.seconds(1, 99), times.seconds(1, 99), times.seconds(1, 52)]
    assert other.begun == one.first_token
    assert other.first_token == pytest.approx(one.first_token + sum(steps))
    assert other.ended == pytest.approx(other.first_token + times.seconds(2))
    assert one.ended == pytest.approx(other.ended + 5 * times.seconds(1))


def test_a_newcomer_waits_for_the_end_of_the_step_and_no_longer() -> None:
    times = StepTimes(((1, 1.0),))
    run = simulate(Fleet(1, times, Limits(places=2)), [Request(0, 0.0, 1, 100), Request(1, 10.3, 1, 1)])
    assert run.requests[1].begun == pytest.approx(11.0)
    assert run.requests[1].ended == pytest.approx(12.0)
    assert run.requests[0].ended == pytest.approx(100.0)


def test_bursts_keep_the_mean_rate_and_make_waits_longer() -> None:
    calm, bursty = Traffic(20, 2000, seed=5), Traffic(20, 2000, burst=4, burst_seconds=1, seed=5)
    counts = [len(list(traffic.requests())) for traffic in (calm, bursty)]
    assert counts[0] == pytest.approx(40_000, rel=0.02)
    assert counts[1] == pytest.approx(40_000, rel=0.08)
    times = sorted(request.arrived for request in bursty.requests())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert statistics.pstdev(gaps) > 1.3 * statistics.fmean(gaps)


def test_log_normal_lengths_have_their_mean_and_spread() -> None:
    numbers = random.Random(1)
    lengths = [Length(500, 0.8).draw(numbers) for _ in range(50_000)]
    assert statistics.fmean(lengths) == pytest.approx(500, rel=0.02)
    assert statistics.pstdev(lengths) == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize(
    ("length", "mean"),
    [(Length(200), 100), (Length(200, exponential=True), 200), (Length(200, 1.0), 200), (Length(200, 0.5), 125)],
)
def test_what_is_left_of_answers_on_their_way_is_as_long_as_renewal_theory_says(length: Length, mean: float) -> None:
    """The mean square over twice the mean."""
    numbers = random.Random(2)
    assert statistics.fmean(length.left(numbers) for _ in range(20_000)) == pytest.approx(mean, rel=0.05)


def test_the_same_seed_gives_the_same_times_and_another_one_others() -> None:
    def first_tokens(seed: int) -> list[float]:
        fleet = Fleet(5, StepTimes(((1, 0.01), (8, 0.02))), policy="weighted", seed=seed)
        return simulate(fleet, Traffic(50, 20, clients=3, seed=seed).requests()).first_tokens()

    assert first_tokens(1) == first_tokens(1) != first_tokens(2)


def test_reports_spare_a_slow_replica_and_turns_do_not() -> None:
    times = StepTimes(((1, 0.01), (16, 0.02)))
    waits = {}
    for policy in ("round-robin", "weighted", "least-loaded"):
        fleet = Fleet(3, times, Limits(16, 1000), policy, slow_share=0.34, slow_factor=5)
        run = simulate(fleet, Traffic(20, 120, Length(16), Length(50, 0.5), seed=2).requests())
        waits[policy] = quantile(run.first_tokens(warm_up=30), 0.95)
    assert waits["weighted"] < 0.5 * waits["round-robin"]
    assert waits["least-loaded"] < 0.5 * waits["round-robin"]


def test_reports_spare_a_slow_replica_though_each_client_calls_little() -> None:
    """Less than once for each replica: a client that goes through all of them first would have weights for nothing."""
    times = StepTimes(((1, 0.01), (16, 0.02)))
    fleet = Fleet(20, times, Limits(16, 1000), "weighted", slow_share=0.1, slow_factor=5)
    traffic = Traffic(80, 60, Length(16), Length(50, 0.5), clients=400, seed=2)
    run = simulate(fleet, traffic.requests())
    assert statistics.fmean(one.replica < 2 for one in run.settled(20)) < 0.03  # in turn: a tenth


def test_step_times_are_read_on_straight_lines() -> None:
    times = StepTimes(((1, 0.010), (9, 0.018), (17, 0.034)), prompt_token=0.0001)
    assert times.seconds(5) == pytest.approx(0.014)
    assert times.seconds(13) == pytest.approx(0.026)
    assert times.seconds(33) == pytest.approx(0.066)
    assert times.seconds(9, 100) == pytest.approx(0.028)
    assert times.seconds(0, 100) == pytest.approx(0.019)
    assert times.scaled(2).seconds(9, 100) == pytest.approx(0.056)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), "growing numbers"),
        (((4, 0.1), (1, 0.2)), "growing numbers"),
        (((0, 0.1),), "from 1"),
        (((1, 0.0),), "more than"),
    ],
)
def test_step_times_that_are_none_are_refused(points: tuple[tuple[int, float], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepTimes(points)
