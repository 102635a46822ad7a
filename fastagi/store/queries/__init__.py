"""Units of work: plain functions over a `sqlalchemy.Connection`, one transaction each, the same on both databases.

To do several of them in one transaction, write a function that calls them and give that to `Store.run`. A unit may be
run again after a failure (nothing of the first run is left), so it must change nothing but the database.
"""
