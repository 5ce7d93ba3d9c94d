"""The distributions here are installed and tested by tests/whole/test_installed_adapter.py, not where they lie."""

from pathlib import Path

collect_ignore = [folder.name for folder in Path(__file__).parent.iterdir() if folder.is_dir()]
