"""Taking a drill away again, so that everything else is as it was before it."""
