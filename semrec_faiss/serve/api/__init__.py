"""The routes: requests taken apart and let in, what answers each, the OpenAPI document, the page."""
