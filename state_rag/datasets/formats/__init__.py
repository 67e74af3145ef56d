"""Published formats of screens, and files that have them."""
