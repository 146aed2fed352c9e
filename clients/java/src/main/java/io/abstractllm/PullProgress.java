package io.abstractllm;

import java.util.OptionalLong;

/**
 * A report of a download.
 *
 * @param file the file that this report is about; empty where it is about the whole alone
 * @param fileBytesDone the bytes of the file that are on the disk
 * @param fileBytesTotal the file's size; empty: not known yet
 * @param bytesDone the bytes of the model that are on the disk
 * @param bytesTotal the model's size; empty: not known yet
 * @param done true in the last report: the model is complete
 */
public record PullProgress(
        String file,
        long fileBytesDone,
        OptionalLong fileBytesTotal,
        long bytesDone,
        OptionalLong bytesTotal,
        boolean done) {}
