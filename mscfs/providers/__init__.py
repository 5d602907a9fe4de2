"""Storage providers: one SDK each, imported only when used."""
