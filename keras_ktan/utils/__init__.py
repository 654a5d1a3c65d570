"""What several modules need."""
