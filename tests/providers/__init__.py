"""Tests of mscfs.providers."""
