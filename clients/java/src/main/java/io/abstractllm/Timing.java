package io.abstractllm;

import java.time.Duration;
import java.util.Optional;

/**
 * The times of an answer, each from the request's arrival, on the server's clock; empty where it was not measured.
 *
 * @param queued to the start of its work
 * @param firstToken to the first generated event
 * @param total to the end of the answer
 */
public record Timing(Optional<Duration> queued, Optional<Duration> firstToken, Optional<Duration> total) {}
