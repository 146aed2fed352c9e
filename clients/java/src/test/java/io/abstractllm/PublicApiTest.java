package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import org.junit.jupiter.api.Test;

class PublicApiTest {
    @Test
    void aClientInheritsNothing() {
        assertEquals(Object.class, RemoteLLM.class.getSuperclass());
        assertEquals(List.of(AutoCloseable.class), List.of(RemoteLLM.class.getInterfaces()));
    }
}
