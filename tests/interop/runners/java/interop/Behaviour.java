package interop;

/** One behaviour in Java. */
public interface Behaviour {
    /**
     * Does it, and reports.
     *
     * @param task what it is given
     * @return what it observed, as values that JSON has
     * @throws Exception for whatever it did not expect
     */
    Object run(Task task) throws Exception;
}
