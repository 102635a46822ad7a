"""Built-in handlers: commands that a dialplan or another AMI client can use without any Python."""
