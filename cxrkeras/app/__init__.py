"""The tool: a network that answers for uploaded images."""
