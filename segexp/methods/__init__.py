"""One folder per paper, and the LightningModule that the voxel-labelling ones share."""
