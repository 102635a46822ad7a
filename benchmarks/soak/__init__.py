"""Hours of calls with faults in between: nothing may be lost, nothing may grow."""
