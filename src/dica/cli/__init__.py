"""The command `dica`."""
