"""Rules for who holds which row; the file is the name of the rule."""
