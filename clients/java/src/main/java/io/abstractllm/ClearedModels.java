package io.abstractllm;

import java.util.List;

/**
 * What was deleted from the server's disk, or, on a dry run, what would be.
 *
 * @param removed the names of the models
 * @param freedBytes the space that it frees
 */
public record ClearedModels(List<String> removed, long freedBytes) {}
