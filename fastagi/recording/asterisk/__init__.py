"""One Asterisk as the recorder sees it: its connection, its live channels, the commands for MixMonitor and Monitor."""
