"""Records to something to look at: one document, as an offline HTML page, as Markdown, and its charts as PNG.

`page` is the common part: what a document is and how it looks. Each other room makes a document of one kind of
result; they measure nothing and change nothing.
"""
