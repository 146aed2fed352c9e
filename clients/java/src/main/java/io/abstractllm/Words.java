package io.abstractllm;

import com.google.protobuf.Descriptors.EnumDescriptor;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import java.util.Locale;

/** The contract's enums as words. */
final class Words {
    private Words() {}

    /** A value's name without its prefix, or the digits of a number that this client does not know. */
    static String name(EnumDescriptor kind, int number) {
        EnumValueDescriptor value = kind.findValueByNumber(number);
        if (value == null) {
            return Integer.toString(number);
        }
        int prefix = kind.getValues().get(0).getName().length() - "UNSPECIFIED".length();
        return value.getName().substring(prefix);
    }

    /** As {@link #name}, in lower case. */
    static String word(EnumDescriptor kind, int number) {
        return name(kind, number).toLowerCase(Locale.ROOT);
    }
}
