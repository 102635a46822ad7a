"""Versions of Asterisk that the recorder works with, for doctor, demo and the documents."""

OLDEST = (16, 17)
"""MixMonitor's events came with 16.17 and 18.3."""

NEWEST = 22
"""Newest version that was tried."""

MAJORS = range(OLDEST[0], NEWEST + 1)


def too_old(major: int, minor: int) -> bool:
    """Tell whether a version's MixMonitor sends no event when it starts and stops."""
    return (major, minor) < OLDEST or (major == 18 and minor < 3)
