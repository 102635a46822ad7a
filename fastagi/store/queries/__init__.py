"""Units of work: plain functions over a `sqlalchemy.Connection`, one transaction each, the same on both databases.

Whoever needs several of them to hold together writes a function that calls them and gives that to `Store.run`. A unit
may be run again after a failure (nothing of the first run is left), so it changes nothing but the database.
"""
