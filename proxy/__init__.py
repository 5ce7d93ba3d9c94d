"""Reelay: one video API before many sellers, on a bill that can be trusted."""
