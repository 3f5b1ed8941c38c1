"""dica: an archive that regenerates and audits the numbers of five deep image clustering papers."""

__version__ = "0.1.0"
