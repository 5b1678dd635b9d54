"""Records to something to look at: one document, as an offline HTML page, as Markdown, and its charts as PNG."""
