package io.abstractllm;

import java.util.List;

/**
 * The models that were deleted from the server's disk or, on a dry run, would be.
 *
 * @param removed the names of the models
 * @param freedBytes the space that it frees
 */
public record ClearedModels(List<String> removed, long freedBytes) {}
