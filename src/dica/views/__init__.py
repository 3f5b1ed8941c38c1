"""Augmentations on the device: pixels, steps, and the pipelines that the parameters call views."""
