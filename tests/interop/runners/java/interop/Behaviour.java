package interop;

/** One behaviour in Java. */
public interface Behaviour {
    /**
     * Runs the behaviour and reports.
     *
     * @param task the task
     * @return the observations, as values that JSON has
     * @throws Exception if something unexpected happens
     */
    Object run(Task task) throws Exception;
}
