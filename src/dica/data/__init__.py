"""Data sets: from archive files to uint8 arrays whose content is proven by a fingerprint.

`catalog` reads `params/datasets.yaml`, `fetch` brings archives, one module per kind reads them, `prepare` writes the
arrays, `prepared` opens them for training and `labels` opens the classes for evaluation. Import the modules directly:
this package file stays empty so that light rules do not pay for heavy imports.
"""
