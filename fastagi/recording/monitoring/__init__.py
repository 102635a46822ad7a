"""Open recordings are looked at: limits, growth, sound, files that vanish."""
