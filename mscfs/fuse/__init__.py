"""The only place that knows pyfuse3."""
