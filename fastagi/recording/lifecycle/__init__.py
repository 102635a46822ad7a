"""A recording's course on the wish of the call: started, paused, followed to another leg, ended, finished."""
