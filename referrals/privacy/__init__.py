"""What people may ask for: that traces are forgotten with time, and that a person goes."""
