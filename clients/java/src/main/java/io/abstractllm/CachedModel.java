package io.abstractllm;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * A model on the server's disk.
 *
 * @param name its name, such as {@code Qwen/Qwen3-0.6B}
 * @param revisions the revisions that are there, as commit ids
 * @param sizeBytes what it occupies on disk
 * @param lastUsedTime when one of its files was last read; empty: not known
 * @param lastModifiedTime when one of its files was last written; empty: not known
 * @param usedBy the LLMs that have it loaded, or are loading it
 * @param partial whether files are missing, as after a download that broke off
 */
public record CachedModel(
        String name,
        List<String> revisions,
        long sizeBytes,
        Optional<Instant> lastUsedTime,
        Optional<Instant> lastModifiedTime,
        List<String> usedBy,
        boolean partial) {}
