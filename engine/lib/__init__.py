"""Small helpers without business in them; each module owns one subject and imports no room."""
