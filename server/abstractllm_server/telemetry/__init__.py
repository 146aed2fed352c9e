"""The record of each call, and all that is made of it: log lines, metrics, spans, the audit."""
