"""Label maps of new images: finding the images, labelling them, writing BIDS derivatives."""
