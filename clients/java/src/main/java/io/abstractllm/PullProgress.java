package io.abstractllm;

import java.util.OptionalLong;

/**
 * How far a download is.
 *
 * @param file the file that this report is about; empty where it is about the whole alone
 * @param fileBytesDone what is there of the file
 * @param fileBytesTotal the file's size; empty: not known yet
 * @param bytesDone what is there of the model
 * @param bytesTotal the model's size; empty: not known yet
 * @param done true in the last report: the model is whole
 */
public record PullProgress(
        String file,
        long fileBytesDone,
        OptionalLong fileBytesTotal,
        long bytesDone,
        OptionalLong bytesTotal,
        boolean done) {}
