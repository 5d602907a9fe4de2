"""mscfs: object storage with its replicas, as a directory and as a Python library."""
