"""Data sets: from archive files to uint8 arrays whose content is proven by a fingerprint.

`catalog` reads `params/datasets.yaml`, `fetch` brings archives, one module per kind reads them, `prepare` writes the
arrays and the labels, `prepared` opens the arrays (and, for a supervised method, the labels of its train split). What
else needs labels reads `data/labels/<name>.npz`: `dica.scores`, the audit, some figures and analyses. Import the
modules directly: this package file stays empty so that light rules do not pay for heavy imports.
"""
