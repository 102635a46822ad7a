"""Runtime services of the process: threads for file work, tasks with an owner, a clock without jumps."""
