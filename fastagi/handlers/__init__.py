"""Built-in handlers: what a dialplan or another AMI client can ask for without a line of Python."""
