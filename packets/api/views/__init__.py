"""The views of the packets' API, one module per subject. They parse, call and shape; no more."""
