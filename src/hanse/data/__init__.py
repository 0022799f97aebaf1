"""The data of a run: found, read, split, dealt to clients and turned into tokens."""
