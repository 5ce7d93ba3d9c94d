"""Monitoring: dashboards and what makes them. Nothing of it is part of the running service."""
