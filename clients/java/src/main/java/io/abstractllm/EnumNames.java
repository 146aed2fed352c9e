package io.abstractllm;

import com.google.protobuf.Descriptors.EnumDescriptor;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import java.util.Locale;

/** The names of the contract's enum values. */
final class EnumNames {
    private EnumNames() {}

    /** A value's name without its prefix, or the digits of a number that this client does not know. */
    static String name(EnumDescriptor type, int number) {
        EnumValueDescriptor value = type.findValueByNumber(number);
        if (value == null) {
            return Integer.toString(number);
        }
        int prefix = type.getValues().get(0).getName().length() - "UNSPECIFIED".length();
        return value.getName().substring(prefix);
    }

    /** A value's {@link #name} in lower case. */
    static String lowerCaseName(EnumDescriptor type, int number) {
        return name(type, number).toLowerCase(Locale.ROOT);
    }
}
