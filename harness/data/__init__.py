"""Data: sets of uint8 images, their cut into tasks, the stream of batches, augmentation."""
