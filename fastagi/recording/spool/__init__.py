"""Asterisk's raw files: where they are written, what they tell while they grow, what is to become of them."""
