"""The composite: an object made of named components, its parts, links, definitions and sessions."""
