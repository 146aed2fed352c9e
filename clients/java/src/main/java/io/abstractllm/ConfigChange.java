package io.abstractllm;

import com.google.protobuf.FieldMask;
import io.abstractllm.v1.LlmConfig;
import io.abstractllm.v1.SetConfigRequest;
import java.util.List;

/** A change of an LLM's configuration on the server, for every caller of it. */
public final class ConfigChange {
    final SetConfigRequest request;

    private ConfigChange(SetConfigRequest request) {
        this.request = request;
    }

    /**
     * Begins a change.
     *
     * @param config the new values
     * @return a builder
     */
    public static Builder to(LlmConfig config) {
        return new Builder(config);
    }

    /** Collects the parts of a change. */
    public static final class Builder {
        private final SetConfigRequest.Builder request = SetConfigRequest.newBuilder();

        private Builder(LlmConfig config) {
            request.setConfig(config);
        }

        /**
         * The paths to change, such as {@code parameters.temperature}; one that is unset in the new values is cleared.
         * Without a mask, the fields that are set are changed.
         *
         * @param paths paths within the configuration
         * @return this builder
         */
        public Builder mask(List<String> paths) {
            request.setUpdateMask(FieldMask.newBuilder().addAllPaths(paths));
            return this;
        }

        /**
         * Changes the configuration only if it still has this etag.
         *
         * @param etag the etag that was read
         * @return this builder
         */
        public Builder etag(String etag) {
            request.setEtag(Check.text(etag, "etag"));
            return this;
        }

        /**
         * Only checks the change, and returns the configuration that it would give.
         *
         * @return this builder
         */
        public Builder validateOnly() {
            request.setValidateOnly(true);
            return this;
        }

        /**
         * Ends the change.
         *
         * @return the change
         */
        public ConfigChange build() {
            return new ConfigChange(request.build());
        }
    }
}
