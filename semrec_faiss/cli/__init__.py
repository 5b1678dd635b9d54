"""The command line: one file a command group; a body parses, makes one call, prints."""
