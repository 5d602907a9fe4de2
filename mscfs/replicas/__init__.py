"""Replicas: read order, freshness, fail-over, back-fill and replication."""
