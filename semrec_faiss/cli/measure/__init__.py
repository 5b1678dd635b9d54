"""Commands that measure indexes, choose among them and draw what was measured; `live` is the picture meanwhile."""
