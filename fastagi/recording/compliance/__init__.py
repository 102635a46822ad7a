"""Completeness (were all required calls recorded?) and evidence (is a finished file still what was recorded?)."""
