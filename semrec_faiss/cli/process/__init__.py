"""The process around a command: what it prints to, which signals end it, and with which exit code."""
