"""Play sellers: wires read from their own pages, for tests, demos and load. Shares no code with the adapters."""
