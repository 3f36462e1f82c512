"""From what is seen of a machine that did not come up to one cause in words, and a folder with all of it."""
