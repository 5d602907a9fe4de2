"""The persistent chunk cache on disk."""
