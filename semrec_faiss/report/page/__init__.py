"""A report whichever way it is shown: sections, facts, tables and charts, to HTML, Markdown and PNG.

A `Document` knows nothing of what it shows; `html` puts style, scripts, data and charts into one file that needs no
network. `palette` gives every index type one colour and one shape wherever it is drawn.
"""
