"""What `semrec bench` measures: `group` holds its subcommands, a file each where one takes more than a few lines."""
