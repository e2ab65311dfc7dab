"""The LightningModule and what its training needs: checkpoints, ranks, precision."""
