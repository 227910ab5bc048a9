"""Plain frozen data, errors and text, file and process helpers; standard library only."""
