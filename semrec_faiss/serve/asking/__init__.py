"""The index behind the routes: the generation in use, questions asked of it, and those that are searched together."""
