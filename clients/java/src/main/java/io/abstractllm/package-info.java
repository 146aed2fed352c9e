/**
 * The Java client of AbstractLLM: text from local and hosted language models over one gRPC service.
 *
 * <p>{@link io.abstractllm.RemoteLLM} is the front; the contract's messages and stubs are in {@code io.abstractllm.v1}.
 *
 * @serial exclude
 */
package io.abstractllm;
