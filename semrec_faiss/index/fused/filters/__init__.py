"""What type fused knows of filters: whose titles are copied together, and where to.

`known_filters` remembers the filters used last and decides which of them it pays to put on one of the `shelves`;
`bitmaps` sends to the GPU which titles each allows.
"""
