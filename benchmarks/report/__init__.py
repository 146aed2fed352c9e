"""The report: a page and its plots, made of the results that the benchmarks gave."""
