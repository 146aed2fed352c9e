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
 * What a call takes beside its prompt. What is not set stays the LLM's own default; zero is sent as zero. Whether a
 * value is in range is the server's to say.
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

    /** Collects options; a later setting of the same option replaces the earlier one. */
    public static final class Builder {
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
         * Another model of the same LLM, one that its configuration lists.
         *
         * @param value the model's name
         * @return this builder
         */
        public Builder model(String value) {
            String checked = Check.text(value, "parameters.model");
            return parameter(parameters -> parameters.setModel(checked));
        }

        /**
         * The sampling temperature.
         *
         * @param value from 0, which always takes the likeliest token, to 2
         * @return this builder
         */
        public Builder temperature(double value) {
            double checked = Check.finite(value, "parameters.temperature");
            return parameter(parameters -> parameters.setTemperature(checked));
        }

        /**
         * Nucleus sampling: the smallest set of tokens with this total probability.
         *
         * @param value above 0, up to 1, which is off
         * @return this builder
         */
        public Builder topP(double value) {
            double checked = Check.finite(value, "parameters.top_p");
            return parameter(parameters -> parameters.setTopP(checked));
        }

        /**
         * Samples among this many likeliest tokens only.
         *
         * @param value a number of tokens; 0 keeps every one
         * @return this builder
         */
        public Builder topK(int value) {
            return parameter(parameters -> parameters.setTopK(value));
        }

        /**
         * Drops tokens less likely than this fraction of the likeliest one.
         *
         * @param value from 0, which is off, to 1
         * @return this builder
         */
        public Builder minP(double value) {
            double checked = Check.finite(value, "parameters.min_p");
            return parameter(parameters -> parameters.setMinP(checked));
        }

        /**
         * The most tokens to generate, reasoning included.
         *
         * @param value a number of tokens
         * @return this builder
         */
        public Builder maxTokens(int value) {
            return parameter(parameters -> parameters.setMaxTokens(value));
        }

        /**
         * Makes sampling repeatable, as far as the provider can.
         *
         * @param value any number
         * @return this builder
         */
        public Builder seed(long value) {
            return parameter(parameters -> parameters.setSeed(value));
        }

        /**
         * Lowers the logits of tokens already generated, once each.
         *
         * @param value from -2 to 2
         * @return this builder
         */
        public Builder presencePenalty(double value) {
            double checked = Check.finite(value, "parameters.presence_penalty");
            return parameter(parameters -> parameters.setPresencePenalty(checked));
        }

        /**
         * Lowers the logits of tokens already generated, once per occurrence.
         *
         * @param value from -2 to 2
         * @return this builder
         */
        public Builder frequencyPenalty(double value) {
            double checked = Check.finite(value, "parameters.frequency_penalty");
            return parameter(parameters -> parameters.setFrequencyPenalty(checked));
        }

        /**
         * Divides positive, and multiplies negative, logits of tokens already seen.
         *
         * @param value above 0, up to 10; 1 is off
         * @return this builder
         */
        public Builder repetitionPenalty(double value) {
            double checked = Check.finite(value, "parameters.repetition_penalty");
            return parameter(parameters -> parameters.setRepetitionPenalty(checked));
        }

        /**
         * Texts that end the answer and are not part of it.
         *
         * @param values the texts
         * @return this builder
         */
        public Builder stop(List<String> values) {
            List<String> checked = List.copyOf(values);
            checked.forEach(text -> Check.text(text, "parameters.stop"));
            return parameter(parameters -> parameters.clearStop().addAllStop(checked));
        }

        /**
         * Added to the logits of tokens.
         *
         * @param values from -100 to 100, by token id of the LLM's own vocabulary
         * @return this builder
         */
        public Builder logitBias(Map<Integer, Double> values) {
            Map<Integer, Double> checked = Map.copyOf(values);
            checked.forEach((token, bias) -> Check.finite(bias, "parameters.logit_bias." + token));
            return parameter(parameters -> parameters.clearLogitBias().putAllLogitBias(checked));
        }

        /**
         * Asks for log-probabilities.
         *
         * @param value how many of the likeliest tokens to list at each place; 0 lists the sampled token's own alone
         * @return this builder
         */
        public Builder topLogprobs(int value) {
            return parameter(parameters -> parameters.setTopLogprobs(value));
        }

        /**
         * How much a reasoning model may think.
         *
         * @param value the effort
         * @return this builder
         */
        public Builder reasoningEffort(ReasoningEffort value) {
            Objects.requireNonNull(value, "parameters.reasoning_effort");
            return parameter(parameters -> parameters.setReasoningEffort(value.value));
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
         * Whether and which tool must be called.
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
         * What happens to parameters that the LLM does not support.
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
         * What goes with a call beside its message, such as {@code traceparent}: a function that is asked in the
         * calling thread at each call. Its answers go over those of the client's default options.
         *
         * @param value gives lower-case names with values of printable ASCII
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

        private Builder parameter(Consumer<GenerationParameters.Builder> setting) {
            return set(request -> setting.accept(request.getParametersBuilder()));
        }
    }
}
