"""The file system: trio, no pyfuse3."""
