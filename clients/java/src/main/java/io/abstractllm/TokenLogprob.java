package io.abstractllm;

import com.google.protobuf.ByteString;
import java.util.List;

/**
 * A generated token and its log-probability.
 *
 * @param tokenId the token's number in the model's vocabulary; 0 where the provider does not tell it
 * @param token the token as text; bytes that are not whole characters show as U+FFFD
 * @param tokenBytes the token's exact bytes; empty where the provider does not tell them
 * @param logprob the natural logarithm of its probability
 * @param top the likeliest tokens at this place, likeliest first
 */
public record TokenLogprob(int tokenId, String token, ByteString tokenBytes, double logprob, List<Top> top) {
    /**
     * One of the likeliest tokens at a place of the answer.
     *
     * @param tokenId as in {@link TokenLogprob}
     * @param token as in {@link TokenLogprob}
     * @param tokenBytes as in {@link TokenLogprob}
     * @param logprob as in {@link TokenLogprob}
     */
    public record Top(int tokenId, String token, ByteString tokenBytes, double logprob) {}
}
