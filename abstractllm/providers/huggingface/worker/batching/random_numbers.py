"""Random numbers that depend on nothing but a seed and a position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["uniform_table", "uniforms"]

_MASK = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns random numbers in [0, 1), each of which depends on its seed and its position alone.

    The generator is SplitMix64 (Steele, Lea and Flood, https://doi.org/10.1145/2714064.2660195), applied to the seed
    first so that neighbouring seeds have nothing in common; 53 bits of its result are used.

    Args:
        seeds: Integers; negative ones and those of more than 64 bits are taken modulo 2^64.
        positions: Integers from 0 on, one for each seed.
    """
    return uniform_table(seeds, positions, 1)[:, 0]


def uniform_table(seeds: Sequence[int], positions: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
    """Returns the random numbers of each seed at its position and the next ones, `[seeds, steps]`; see `uniforms`."""
    places = _words(positions)[:, np.newaxis] + np.arange(steps, dtype=np.uint64)
    mixed = _mix(_words(seeds))[:, np.newaxis] ^ np.multiply(places, _GOLDEN, dtype=np.uint64)
    return (_mix(mixed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _words(numbers: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([number & _MASK for number in numbers], dtype=np.uint64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Applies one step of SplitMix64, whose overflows wrap around in arrays of this type."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
