"""``semrec bench serve``: a server that is started, loaded over HTTP and measured."""
