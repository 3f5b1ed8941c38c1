"""Loss functions of the papers: pure functions of tensors, one file a paper."""
