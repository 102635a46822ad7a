"""fastagi: the call recorder for Asterisk."""
