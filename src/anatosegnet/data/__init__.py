"""Cases, splits, datasets, and one data module per dataset."""
