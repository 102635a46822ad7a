"""The recordings that are open: their rows, and the only door to the ledger."""
