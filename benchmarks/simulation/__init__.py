"""A simulation of many replicas: who waits how long, from arrivals, lengths, step times and the limits of the server.

Discrete events, in pure Python, seeded: the same numbers give the same result on every machine.
"""
