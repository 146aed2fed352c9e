package io.abstractllm;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * A model on the server's disk.
 *
 * @param name its name, such as {@code Qwen/Qwen3-0.6B}
 * @param revisions its revisions on the disk, as commit ids
 * @param sizeBytes the space that it takes on disk
 * @param lastUsedTime the time at which one of its files was last read; empty: not known
 * @param lastModifiedTime the time at which one of its files was last written; empty: not known
 * @param usedBy the LLMs that have it loaded, or are loading it
 * @param partial true if files are missing, as after a download that broke off
 */
public record CachedModel(
        String name,
        List<String> revisions,
        long sizeBytes,
        Optional<Instant> lastUsedTime,
        Optional<Instant> lastModifiedTime,
        List<String> usedBy,
        boolean partial) {}
