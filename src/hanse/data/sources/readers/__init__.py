"""One file for each kind of data file: what it holds, as records with their place."""
