"""What clients and operators see over HTTP."""
