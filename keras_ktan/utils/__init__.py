"""What several levels of the package need."""
