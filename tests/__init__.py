"""The tests of mscfs; they mirror its packages."""
