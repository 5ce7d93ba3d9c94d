"""The words: what every other room speaks of. Standard library and msgspec only."""
