"""AGI commands as methods, by subject; `fastagi.agi.channel.Channel` has them all.

Times are milliseconds where the name says ``timeout_ms``, else seconds as Asterisk counts them. Each method raises:

- `Hangup`: the call is over, before or during the command
- `CommandFailed`: Asterisk has no such command (510) or cannot read its arguments (520)
- `BadArgument`: an argument cannot be sent; nothing was sent
- `Error`: Asterisk did not do it, though the call is up (no such file, no such application)
"""
