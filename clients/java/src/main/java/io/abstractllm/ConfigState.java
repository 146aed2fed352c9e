package io.abstractllm;

import io.abstractllm.v1.LlmConfig;

/**
 * An LLM's configuration on the server, in the contract's own message.
 *
 * @param config the configuration
 * @param etag identifies this state of it: {@link ConfigChange.Builder#etag(String)}
 */
public record ConfigState(LlmConfig config, String etag) {}
