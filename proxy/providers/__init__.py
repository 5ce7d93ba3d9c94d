"""The sellers' wires, one file each: pure translation between our words and theirs."""
