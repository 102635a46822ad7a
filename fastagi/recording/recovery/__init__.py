"""Recordings that are found, not started: after a restart, in the spool, at a dead server, begun by somebody else."""
