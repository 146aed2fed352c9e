package io.abstractllm;

import com.google.protobuf.Struct;
import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationParameters;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * The options of a call: everything that it takes beside its prompt.
 *
 * <pre>{@code
 * Options options = Options.builder().temperature(0).maxTokens(100).build();
 * }</pre>
 *
 * <p>What is not set stays the LLM's own default; zero is sent as zero. Ranges are checked by the server.
 */
public final class Options {
    /** No options: the client's and the LLM's own defaults. */
    public static final Options NONE = builder().build();

    private final List<Consumer<GenerateRequest.Builder>> settings;
    private final List<Supplier<Map<String, String>>> metadata;
    private final Duration timeout;

    private Options(
            List<Consumer<GenerateRequest.Builder>> settings,
            List<Supplier<Map<String, String>>> metadata,
            Duration timeout) {
        this.settings = List.copyOf(settings);
        this.metadata = List.copyOf(metadata);
        this.timeout = timeout;
    }

    /**
     * Begins a set of options.
     *
     * @return a builder
     */
    public static Builder builder() {
        return new Builder();
    }

    /** Merges these options with a client's defaults, which count where these set nothing. */
    Options over(Options defaults) {
        List<Consumer<GenerateRequest.Builder>> allSettings = new ArrayList<>(defaults.settings);
        allSettings.addAll(settings);
        List<Supplier<Map<String, String>>> allMetadata = new ArrayList<>(defaults.metadata);
        allMetadata.addAll(metadata);
        return new Options(allSettings, allMetadata, timeout == null ? defaults.timeout : timeout);
    }

    void applyTo(GenerateRequest.Builder request) {
        settings.forEach(setting -> setting.accept(request));
    }

    /** The most time that a call may take; null: no limit. */
    Duration timeout() {
        return timeout;
    }

    /** The metadata of the next call; the functions that supply them are called now. */
    Map<String, String> metadata() {
        Map<String, String> merged = new LinkedHashMap<>();
        metadata.forEach(supplier -> merged.putAll(supplier.get()));
        return merged;
    }

    /**
     * Collects options; a later setting of the same option replaces the earlier one. The generation parameters are
     * those of the contract.
     */
    public static final class Builder extends GenerationParameterSetters<Builder> {
        private final List<Consumer<GenerateRequest.Builder>> settings = new ArrayList<>();
        private final List<Supplier<Map<String, String>>> metadata = new ArrayList<>();
        private Duration timeout;

        private Builder() {}

        /**
         * Instructions that go before the input; they replace the conversation's own system messages.
         *
         * @param value the instructions
         * @return this builder
         */
        public Builder systemPrompt(String value) {
            String checked = Check.text(value, "system_prompt");
            return set(request -> request.setSystemPrompt(checked));
        }

        /**
         * The form that the answer must have.
         *
         * @param value the form
         * @return this builder
         */
        public Builder responseFormat(ResponseFormat value) {
            Objects.requireNonNull(value, "response_format");
            return set(request -> request.setResponseFormat(value.value));
        }

        /**
         * The functions that the model may ask to have called.
         *
         * @param values the functions
         * @return this builder
         */
        public Builder tools(List<Tool> values) {
            List<io.abstractllm.v1.Tool> checked = new ArrayList<>();
            for (Tool tool : values) {
                String path = "tools[" + checked.size() + "]";
                checked.add(io.abstractllm.v1.Tool.newBuilder()
                        .setName(Check.text(tool.name(), path + ".name"))
                        .setDescription(Check.text(tool.description(), path + ".description"))
                        .setParametersJsonSchema(
                                Check.text(tool.parametersJsonSchema(), path + ".parameters_json_schema"))
                        .build());
            }
            return set(request -> request.clearTools().addAllTools(checked));
        }

        /**
         * The rule that says if the model must call a tool, and which.
         *
         * @param value the choice
         * @return this builder
         */
        public Builder toolChoice(ToolChoice value) {
            Objects.requireNonNull(value, "tool_choice");
            return set(request -> request.setToolChoice(value.value));
        }

        /**
         * Settings outside the contract: any JSON object with keys from {@link Capabilities#providerOptions()}.
         *
         * @param values null, Boolean, Number, String, Map and Iterable, by key
         * @return this builder
         */
        public Builder providerOptions(Map<String, ?> values) {
            Struct checked = Check.struct(values, "provider_options");
            return set(request -> request.setProviderOptions(checked));
        }

        /**
         * The caller's own id for logs, traces and errors. It does not deduplicate.
         *
         * @param value the id
         * @return this builder
         */
        public Builder requestId(String value) {
            String checked = Check.text(value, "request_id");
            return set(request -> request.setRequestId(checked));
        }

        /**
         * The caller's labels for logs and traces.
         *
         * @param values the labels
         * @return this builder
         */
        public Builder labels(Map<String, String> values) {
            Map<String, String> checked = Map.copyOf(values);
            checked.forEach((name, text) -> Check.text(text, "labels." + Check.text(name, "labels")));
            return set(request -> request.clearLabels().putAllLabels(checked));
        }

        /**
         * The treatment of parameters that the LLM does not support.
         *
         * @param value the policy
         * @return this builder
         */
        public Builder parametersPolicy(ParametersPolicy value) {
            Objects.requireNonNull(value, "parameters_policy");
            return set(request -> request.setParametersPolicy(value.value));
        }

        /**
         * The most time that the whole call may take, waiting and retries included.
         *
         * @param value the time
         * @return this builder
         * @throws InvalidRequestException if it is not greater than zero
         */
        public Builder timeout(Duration value) {
            timeout = Check.positive(value, "timeout");
            return this;
        }

        /**
         * The metadata that is sent with a call, such as {@code traceparent}: a function that is called in the calling
         * thread at each call. Its entries replace those of the client's default options.
         *
         * @param value supplies lower-case names with values of printable ASCII
         * @return this builder
         */
        public Builder metadata(Supplier<Map<String, String>> value) {
            metadata.clear();
            metadata.add(Objects.requireNonNull(value, "metadata"));
            return this;
        }

        /**
         * Ends the set.
         *
         * @return the options
         */
        public Options build() {
            return new Options(settings, metadata, timeout);
        }

        private Builder set(Consumer<GenerateRequest.Builder> setting) {
            settings.add(setting);
            return this;
        }

        @Override
        Builder parameter(Consumer<GenerationParameters.Builder> setting) {
            return set(request -> setting.accept(request.getParametersBuilder()));
        }
    }
}
