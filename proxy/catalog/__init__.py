"""The catalogue: what each seller makes and at which dated price. Data; the one function reads it."""

from importlib.resources import files


def read_catalog() -> dict[str, bytes]:
    """Each adapter's file, by the adapter's name."""
    return {
        entry.name.removesuffix(".yaml"): entry.read_bytes()
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".yaml")
    }
