package io.abstractllm;

import io.abstractllm.v1.GenerateRequest;

/**
 * A request for an answer, checked and ready to be sent.
 *
 * @param request the request, with the client's defaults
 * @param settings its timeout and metadata
 */
record PreparedCall(GenerateRequest request, CallSettings settings) {}
