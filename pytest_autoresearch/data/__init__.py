"""The prepared data set: its reader, its writer, and the corpora it is made of."""
