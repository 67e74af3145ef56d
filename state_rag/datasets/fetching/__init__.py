"""Downloads of data: what there is, and how a file comes whole and checked."""
