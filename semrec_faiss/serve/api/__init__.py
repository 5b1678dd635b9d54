"""What is said over HTTP: requests taken apart, routes, questions and problems as types, OpenAPI, the page."""
