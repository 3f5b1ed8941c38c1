"""The shared training engine: loop, checkpoints, images on the device, devices and their slots."""
