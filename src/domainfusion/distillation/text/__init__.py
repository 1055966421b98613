"""How a text is read: what it shows, its words, sentences and blocks, and the quantities in it."""
