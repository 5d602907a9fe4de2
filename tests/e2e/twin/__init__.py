"""The same random calls on a mount and on a local directory: results, errno and contents must be the same."""
