"""The synchronous library. No trio here."""
