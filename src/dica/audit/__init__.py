"""Does a stored number still follow from its files? Auditor, comparison, deposit."""
