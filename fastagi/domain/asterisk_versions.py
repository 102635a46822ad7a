"""The versions of Asterisk that the recorder works with; doctor, demo and the documents all say these."""

OLDEST = (16, 17)
"""MixMonitor's events came with 16.17 and 18.3."""

NEWEST = 22
"""What is newer was never tried."""

MAJORS = range(OLDEST[0], NEWEST + 1)


def too_old(major: int, minor: int) -> bool:
    """Whether MixMonitor tells no event when it starts and stops."""
    return (major, minor) < OLDEST or (major == 18 and minor < 3)
