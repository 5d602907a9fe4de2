"""Worker processes that move bytes, and the trio side that talks to them."""
