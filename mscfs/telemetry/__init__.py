"""Status, the control socket and the list of mounts."""
