"""The HTTP doors of growth."""
