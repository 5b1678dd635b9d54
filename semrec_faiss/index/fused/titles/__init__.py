"""What lies on a GPU, or page-locked beside it, for type fused.

`gpu_titles` holds the titles and what finds them fast: copies or bounds, and their int8 `codes`. `as_halves` finds out
titles that came as float16, `page_locked` keeps originals on the host, `users` holds users and what they have seen;
`left_out` makes bitmaps of that, and of other titles that single queries must not be given.
"""
