"""Servers that stand in for the object stores: started by fixtures on free loopback ports, stopped by pid."""
