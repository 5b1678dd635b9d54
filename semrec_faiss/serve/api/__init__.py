"""What is said over HTTP: requests taken apart, routes, questions and replies as types, problems, the OpenAPI document."""
