"""What work runs on: threads that touch files, tasks with an owner, a clock that does not jump."""
