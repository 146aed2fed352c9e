package io.abstractllm;

import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import java.math.BigInteger;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Checks of Java values that protobuf would refuse with a nameless error, or silently take for something else. */
final class Check {
    private static final BigInteger LARGEST_WHOLE_DOUBLE = BigInteger.ONE.shiftLeft(53);

    private Check() {}

    /** Returns the text if it is valid Unicode; protobuf would send a question mark for a lone surrogate. */
    static String text(String value, String field) {
        Objects.requireNonNull(value, field);
        for (int index = 0; index < value.length(); index++) {
            if (!Character.isSurrogate(value.charAt(index))) {
                continue;
            }
            if (!Character.isSupplementaryCodePoint(value.codePointAt(index))) {
                ErrorFacts facts = new ErrorFacts(
                        field + " holds a lone surrogate at character " + index + ", which is not valid Unicode");
                facts.field = field;
                throw new InvalidRequestException(facts);
            }
            index++;
        }
        return value;
    }

    /** Returns the number if it is finite. */
    static double finite(double value, String field) {
        if (!Double.isFinite(value)) {
            throw new InvalidRequestException(ErrorFacts.ofField(field, "must be a finite number", "finite", value));
        }
        return value;
    }

    /** Returns a copy of the texts if all are valid Unicode. */
    static List<String> texts(List<String> values, String field) {
        List<String> copy = List.copyOf(values);
        copy.forEach(value -> text(value, field));
        return copy;
    }

    /** Returns a copy of the numbers if all are finite. */
    static <K> Map<K, Double> finiteValues(Map<K, Double> values, String field) {
        Map<K, Double> copy = Map.copyOf(values);
        copy.forEach((key, value) -> finite(value, field + "." + key));
        return copy;
    }

    /** Returns the duration if it is greater than zero. */
    static Duration positive(Duration value, String field) {
        if (value.isZero() || value.isNegative()) {
            throw new InvalidRequestException(
                    ErrorFacts.ofField(field, "must be greater than 0 seconds", "greater than 0", value));
        }
        return value;
    }

    /** Converts a map of null, Boolean, Number, String, Map and Iterable to a protobuf Struct, without loss. */
    static Struct struct(Map<?, ?> values, String field) {
        Struct.Builder struct = Struct.newBuilder();
        values.forEach((key, value) -> {
            if (!(key instanceof String)) {
                throw new InvalidRequestException(ErrorFacts.ofField(field, "must have strings as keys", null, key));
            }
            struct.putFields(text((String) key, field), value(value, field + "." + key));
        });
        return struct.build();
    }

    private static Value value(Object value, String field) {
        Value.Builder converted = Value.newBuilder();
        if (value == null) {
            converted.setNullValue(NullValue.NULL_VALUE);
        } else if (value instanceof Boolean flag) {
            converted.setBoolValue(flag);
        } else if (value instanceof Number number) {
            converted.setNumberValue(number(number, field));
        } else if (value instanceof CharSequence text) {
            converted.setStringValue(text(text.toString(), field));
        } else if (value instanceof Map<?, ?> map) {
            converted.setStructValue(struct(map, field));
        } else if (value instanceof Iterable<?> entries) {
            ListValue.Builder list = ListValue.newBuilder();
            for (Object entry : entries) {
                list.addValues(value(entry, field + "[" + list.getValuesCount() + "]"));
            }
            converted.setListValue(list);
        } else {
            String rule = "must be null, a Boolean, a Number, a String, a Map or an Iterable";
            throw new InvalidRequestException(
                    ErrorFacts.ofField(field, rule, null, value.getClass().getName()));
        }
        return converted.build();
    }

    private static double number(Number number, String field) {
        BigInteger whole = number instanceof BigInteger big ? big : BigInteger.valueOf(number.longValue());
        boolean isWhole = number instanceof Long || number instanceof BigInteger;
        if (isWhole && whole.abs().compareTo(LARGEST_WHOLE_DOUBLE) > 0) {
            throw new InvalidRequestException(ErrorFacts.ofField(
                    field, "must be at most 2^53; pass a larger number as a string", "2^53", number));
        }
        return finite(number.doubleValue(), field);
    }
}
