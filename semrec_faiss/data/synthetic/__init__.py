"""Made-up titles and users of any number, the same for the same seed.

A `world` of directions is drawn first; titles are sums of a few of them, so that neighbours are worth finding, and
users are made from titles that they like. It is for measuring sizes and speeds: how good recommendations are it
cannot tell.
"""
